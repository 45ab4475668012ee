"""Networks: the encoder, its predictors, the attentive probe, and the world model they make together."""
