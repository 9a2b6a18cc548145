"""A hypervisor seen from here: SSH through the bastion, libvirt, guest XML, disks and their way."""
