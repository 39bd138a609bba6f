"""Networks, losses, backbones, training methods and measures as pure torch: no files, no network, no clock, no Ray.

Every tensor's name ends in its shape, one letter an axis:

    B  images of a batch (rows)          C  channels or feature maps (RGB is 3)
    H  height, pixels or cells           W  width, pixels or cells
    D  numbers of one style code

`gram_BCC` is a Gram matrix for every row, `image_HWC` one image with its channels last. Float images are RGB in
[-1, 1]; uint8 images are RGB with their channels last. Sizes are (height, width).
"""
