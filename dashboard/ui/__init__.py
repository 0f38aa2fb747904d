"""Controls, images and wording that several pages share."""
