"""From other people's models to bundles: LeRobot checkpoints, torch.export programs, ONNX files."""
