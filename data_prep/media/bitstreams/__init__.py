"""What coded packets say of their pictures before any is decoded."""
