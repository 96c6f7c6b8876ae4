"""One killable process per loaded model, cloned from a forkserver that holds the runtime."""
