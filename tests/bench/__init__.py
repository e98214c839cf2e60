"""Measurements that anyone can repeat. They print figures and assert nothing: wall-clock time is no test."""
