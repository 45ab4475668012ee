"""Three frames in each codec, so that a decoder can be tried without an encoder.

Matroska, `SIDE` pixels a side, 10 frames a second, the left half `LEFT` and the right half `RIGHT`; zlib, then base64.
"""

import base64
import zlib

LEFT = (220, 40, 40)
RIGHT = (40, 60, 200)
SIDE = 64

_PACKED = {
    "h264": (
        "eNq1VP9rG2UYf6/LXFFEpzicDHzdhoqsyd0lC13wIE1abGGxZWk39tPx3t2b5Mh9y3uXNfGnXhu7uClzVIbMMewiwrRMndTBqlgQ3WQ/CILMgriNgW4w"
        "5nfcD7r4vEm1f4Evd+/7fH+ez/N+eWzoSquVmQ2FzJ/w/xpGMr+FvZnppk0C5vplkjkIohfDnkfzU0UB8RH5eGPujeB8bulw/t3GIyOnC/mFcL7LbRo/"
        "Uwbui9zSy8A9NP5ZMb8wLezvslvyS6Ccjrx9qxsH7Uf/1+BVvfnM5Q9mHsikc1ON3eRAYd9AZxl8qZlmyx0jXmz6lTOrxTQuh4L/eXM1gHAiRFsXT8xU"
        "HaMZotkje9Xc2NBzidhIfjQ2sDc7Ewrbrs801v9xDV099H6YPh+mx8+GkYnbIfoXXA9C+qn3BAPd276GNhdhXWCRwScbCK1DET6NPTt8bOOUgDaUbmRn"
        "L21d/vvOHcQ7tuj7Z/Xlw/paLcWL80Ot5uDEnoHxkdHnBw/OiWKq80Xj4upAj2c/qmbv/zFErczVEKEpKODUPevb7ZPfDd385IeV4XPHdnyLV7bd/qkm"
        "JxO4D+suo1hK7gRyOAqiGMfXl8AADnQG1UGRdb26RQsBlkUx3ieLMrcuBYGXisUmJyejB0yDuhZxoi4rxnjcaCmwLbBxvcB0HT+FdaIRXZEwowVFSmKD"
        "aparlxUpBdVj4hCr7lNFrMVTYk2Kx7FNlapdwn5VA0oSsefXwRlmlRmKFOWYYcK2WaOG2okJLiojTpEqcgLrJebaROW+OGDUskxfkXF/rd/QAxDpFVsR"
        "oQZivOA64CDtkCRcIH6gen7Z9LhFN0DFU91CwaeB0ifjoMTAwwet5bplUgJGXZP5lqnTNYGIHdbJoZtwf3gdphNQZhEwArlmVRmpq7preyQAXocmBYyY"
        "DoQAQ0a4TYERm/pKP9ZUrw60aQAITSUG8YIOpZmEZzJMRgFXHE9Ss1gKNEjmetRRi64H2q7QA4cyrUNsRd4prpKqbTq8u75OHapXAyUh4k523lJG/RK4"
        "M139D66S5LyiswK2NegrhwWMIsNm4AoHo4hRsKl4PHBnJTUluQsIP6CeksCmB5sERwL2EHKRChwAvpv8lCKZwgXb0L5748u/Lj199MKYuZ18tXi8MrJp"
        "z65Re/s3Vx6+PvfWaysT6Xnmfb1l9+ta/vfNrbkQXeQ3476B4725ptu++86+71uvhsjgwl7h5INPPfFpzwX+3hxdOvJhiM4dgrftl2lh7udw3T+3xJnu"
    ),
    "hevc": (
        "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACTI6CvrNLdvnu7g5e3SLquTIteE3jQghPLGRdNpB3zHd3D5AnFHI4"
        "PXhNE+N0CFcmeDdQsolJ+w3EHIZIBloBkKsWaF3f2Mzv5ODb0OKTWJYW7gimXDo7HIoOgBWBHOtweh3UMYeuNzIWH+2AGsA4p5FBaeuc5tK8lI5GhrYJ"
        "YfG+Aa7uHvqewf76Hq5hzs2NjMqPm1tYvz5keNC1odFhV6NDyKZGltB3jQww3zExMCQvesPImABkTwCLyH1g+PP3xw8GBn5mBQZGBgkHRh7G//9BCphB"
        "KphBSG7qDE5FoKS6EyMjmswChUbWaWGZKqeeNTSABIAEK4sSUC27C+PBoi1KDqDw3lpcvCn5QHcywifpJxa6Lu5wCQ1yDPH093Npn2xgYAVGesYGUMAg"
        "77yt9OrzRobFKxoZQOYyKGgwrhdueGr0rP73rP5/Luf5rQxj/9+eLviVXf+vtufe5wcWT25kOAEyn5uJ8YJgeIthp8MXq8UTGxlSQIKcDIwPVPa3xWze"
        "AIr0ibv7NzcybO8CJrCPTYwXPzQyAwCVr7PO"
    ),
    "vp9": (
        "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACjHcFfWeX7PLd3R28ukXUc2Va8JrGhRCeWMi6bCDvmO/uHiBPKORw"
        "evCaJkYZCFcmeHc2iHv8DcQchkgGWgGQqxZoXd/YzO/k4NvQ4pNYlhbuCKZcOjscig6AFYEce3Ed1C0e1xsZi492QPUzzmlkUNo6p7k0L6WjkaGtNSw+"
        "LMCyuZFR+XFzC+vXhwwPujY0OuxqdAjZ1MgS+q6RAeYjJgYGkKe3FhdvSj7QnYwwL/3EQtfFHS6hQY4hnv5+Lu2TDQyswEjP2AAKGOSdt5W+ed7IsHhv"
        "IwNDQ5NnsxMD8wfmbwwWKjISdgwMBgkMDOn2//8u8v3////f+4+B5H8uFy7+/9P/1v////Yh////HxnmRmssntzIkMLQxuAwaQ6DPwMDswIDQ0gBSPAE"
        "VNB3AVQQFCETd/dvbmTY3gWM/I9NjGEfGpkBr8ulRA=="
    ),
    "av1": (
        "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACjD8EfWeX7PLd3R28ukXUc2Va8JrGhRCeWMi6bCDvmO/uHiBPKORw"
        "evCaJkZ9CFcmeHc2iPvoDcQchkgGWgGQqxZoXd/YzO/k4NvQ4pNYlhbuCKZcOjscig6AFYEc+2Qd1C3R1xsZi492QPUzzmlkUNo6p7k0L6WjkaGtNSze"
        "McywuZFR+XFzC+vXhwwPujY0OuxqdAjZ1MgS+q6RAeYjJgaG5EUTGhl4GLi4QNz1/xviGThA4bC1uHhT8oHuZIQV6ScWui7ucAkNcgzx9PdzaZ9sYGAF"
        "RnrGBlDAIO+8rfTL80aGxbsaGRgaYGb2xhtwGGkIMCxqYmAQAIpvSSt03Xq8ttxL8tD0eSK55svcD3SX3H98313HbE2dwuJVjQwpDEaCGkwMKpM8bSuA"
        "VjMw8DH0PDASNGBi4VRhqPoAdjgPQ0/C4vZGhhMMUowdoLiauLt/cyPD9i5guvjYxJj5oZEZAPxEoPU="
    ),
    "mpeg4": (
        "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACTCyCvrNLdvnu7g5e3SLquTIteE3jQghPLGRdNpB3zHd3D5AnFHI4"
        "PXhNE6M7hCsTvDsbxH33BmIOQyQDrQDIVQu0rm9s5ndy8G1o8UksSwt3BFMunR0ORQfAikCO/bMO6pbi642MxUc7oPoZ5zQyKG2d01yal9LRyNDWHxbv"
        "G+DqbqLvGeyv7xgc0NzIqPy4uYX160OGB10bGh12NTqEbGpkCX3XyADzGxMDQ/KieUCTNgAFGLd2CgNJkMEKDEd6OxhCmVg4RJJB4bO1uHhT8oHuZITV"
        "6ScWui7ucAkNcgzx9PdzaZ9sYGAFRnrGBlDAIO+8rfTF80aGxUcbGRgagJo2MwiwA6ltAgcWC5gdcjB+nLu/J+Q2cw7njdv5QHbvtn9mt3/gYt5f3NvI"
        "kAKye1vgA/f/f0HcE2Bu0AEgFxRvE3f3b25k2N4FTCMfmxgbPzQyAwD2h7TD"
    ),
    "mjpeg": (
        "eNqTcr2/eLFTWyOj03cg/tTI4vS5kcOpqSM3saQovzg70akdKNTayCQR3JDOyAACLIWCvrNLdvnu7g5e3SLquTIteE3jQghPLGRdNpB3zHd3D5AnFHI4"
        "PXhNE6MqhCsTvBso2cRi8QZiDkMkA60AyFULtK5vbOZ3cvBtaPFJLEsLdwRTLp0dDkUHwIpAjr21DuqWwOuNjMVHO6D6Gec0MihtndNcmpfS0cjQ1h4W"
        "7+sV4Ore3Mio/Li5hfXrQ4YHEzc0OuxqdAjZ1MgSuqEldGcjU+i7RgaY15gYGEC+31pcvCn5QHcywuD0EwtdF3e4hAY5hnj6+7m0TzYwsAIjPWMDKGCQ"
        "d95W6nT5eSPDYoe3jQwMDf9v/L/N4MzAwQICrGDAhgzY2dk5ODiAJIgJZHFwcnJCKC4uLh4ebm4+Pj5BQZH/Rxj8GBgZGVGDipWNEUOMnVWAET1IBTFE"
        "/h9gEORgcGBwYGZUYmASZGAWZPh/i4GHmRHIAbLtGc41HAhzYJRhXSjAwNogWLqHQfBAlCADQwSjePQBTOH6/zfB/k0ZYf49AfcvFxc3FzcvGAjwCyCA"
        "kJCQqKgokAQxRURERcXFxYECQEpSUlJOTkZGWVlFW9t48PsXVAJs2d2/uZFhexewtPnYxBj/oZEZJJCCJPB594TNjSe2d8MEmhgfAwCmMe/x"
    ),
}

CODECS = tuple(_PACKED)
"""Codecs there is a sample of."""


def sample(codec: str) -> bytes:
    """The sample video of a codec, as the bytes of a .mkv file."""
    return zlib.decompress(base64.b64decode(_PACKED[codec]))
