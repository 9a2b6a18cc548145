# The lab: a real two-cell OpenStack in namespaces of this machine. Included by the Makefile; as root.
LAB_DIR := /var/lib/cellmove-lab
# A directory that is always there: one make at a time, and nothing is left behind.
LAB_LOCK := flock --close /var/lib

.PHONY: lab lab-status lab-stop lab-down

lab: venv ## bring the two-cell lab up, or mend it (from nothing within 10 minutes)
	ANSIBLE_CONFIG=playbooks/ansible.cfg $(LAB_LOCK) .venv/bin/ansible-playbook playbooks/lab.yml

lab-status: ## print every daemon, compute and agent of the lab; fails unless all is well
	@test -x $(LAB_DIR)/bin/status.py || { echo "there is no lab: make lab"; exit 1; }
	@$(LAB_DIR)/bin/status.py

lab-stop: ## stop the lab and lose its servers; the next make lab starts it from its seeded state
	@test ! -x $(LAB_DIR)/bin/stop || $(LAB_LOCK) $(LAB_DIR)/bin/stop

lab-down: ## stop the lab and leave nothing of it
	@test ! -x $(LAB_DIR)/bin/stop || $(LAB_LOCK) $(LAB_DIR)/bin/stop --purge
	@rm -rf lab $(LAB_DIR)
