"""Put a learned Vision-Language-Action policy on a robot arm, behind a safety filter."""

__version__ = "0.1.0"
