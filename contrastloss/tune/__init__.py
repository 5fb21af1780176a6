"""Checks and times the backends of a machine: ``python -m contrastloss tune``. Importing this
package imports none of its modules."""
