"""Certificates: who a device, the broker and the controller's own processes are.

Two authorities, so that what signs devices can never make a login of the controller: the *fleet CA*
signs devices only, the *broker CA* signs the broker and our own processes. Neither is believed for
releases or assignments.
"""
