"""What the steps write and read: video stores, latent stores, model folders, reports and provenance."""
