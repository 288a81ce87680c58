"""Models: what they were trained on to the byte, loading and saving them, and the contract every saved model keeps."""
