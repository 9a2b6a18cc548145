"""What the lab tests stand on: the lab's clouds, hosts, databases and guests."""
