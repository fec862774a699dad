"""Bags as a data set that LeRobot trains on."""
