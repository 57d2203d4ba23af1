"""Networks for real images: `family` says what an elastic MobileNet is, `network` is its torch module, `ofa` and
`efficientnet_lite` are the spaces."""

from edgenas.spaces.mobilenet.efficientnet_lite import EfficientNetLite0
from edgenas.spaces.mobilenet.ofa import OFAMobileNetV3W10, OFAMobileNetV3W12

__all__ = ["EfficientNetLite0", "OFAMobileNetV3W10", "OFAMobileNetV3W12"]
