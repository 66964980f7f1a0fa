"""Models, losses and the output class. Every file of this folder travels to Hub repositories."""
