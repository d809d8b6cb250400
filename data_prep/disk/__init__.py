"""What disks, file systems and their permissions do to paths and files."""
