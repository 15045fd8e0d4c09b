"""How good generated videos are: the paper's automatic metrics, and what they leave out."""
