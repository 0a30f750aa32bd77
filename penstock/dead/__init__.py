"""Dead letters as work: look through them, choose some, send them back or drop them; for programs and for the command."""
