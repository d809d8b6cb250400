"""The page on which people try an adapter."""
