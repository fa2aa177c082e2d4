"""BlazePose: person detector, rotated regions, 33 landmarks in the image and in metres."""
