"""One editor per file, all of one shape.

An editor module provides
    NAME                                the approach's name
    Settings                            a frozen record of its hyper-parameters
    init(shapes, like, settings, seed)  its trainable parameters, a flat {name: tensor}
    update(parameters, factors)         captured {matrix: (x, δ)} → Update
    learning_rates(parameters, settings)  {parameter name: learning rate}
and nothing else; masks, losses and the training loop know none of them by name.
"""
