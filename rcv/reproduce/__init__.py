"""The paper's comparison, its ablations and its studies, from clips that everyone can render: `rcv reproduce`."""
