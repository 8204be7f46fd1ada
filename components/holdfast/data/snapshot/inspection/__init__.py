"""What is in a delivery and what a run would refuse, before anything is trained: `holdfast check-data`."""
