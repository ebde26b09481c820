"""Programs that run in the sandbox: their text is sent there; they import no other."""
