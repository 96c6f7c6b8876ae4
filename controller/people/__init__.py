"""People and programs: who they are, how they prove it, and what their role allows."""
