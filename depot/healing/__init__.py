"""Making good what is bad or missing, deleting what nobody wants, replacing disks."""
