"""The TUF repository that devices follow: what is published, and who keeps it fresh."""
