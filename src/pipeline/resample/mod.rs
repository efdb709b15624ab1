//! Stages 5 and 9: image to the model's spacing, logits back to the image's grid.
