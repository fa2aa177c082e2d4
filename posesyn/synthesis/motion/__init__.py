"""The second stage: motions for the persons that were found."""
