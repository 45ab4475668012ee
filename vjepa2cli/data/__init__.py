"""From files to arrays: video decoding, transforms, masks, poses and batches."""
