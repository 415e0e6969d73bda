"""One editor per file, all of one shape.

An editor module provides
    NAME                                       the approach's name
    Settings                                   a frozen record of its hyper-parameters
    init(shapes, width, like, settings, seed)  its trainable parameters, a flat {name: tensor}; width of the embeddings
    learning_rates(parameters, settings)       {parameter name: learning rate}
    update(parameters, settings, edits)        what it sees of some edits (types.Edits) → Update
and nothing else; masks, losses and the training loop know none of them by name.
"""
