"""The drag method: motion supervision, point tracking, denoising, and the session that runs the loop."""
