"""The TUF repository's rules, shared by the controller and by those who sign for it."""
