"""Reading the bits of a codec's headers: fixed-length fields, Exp-Golomb codes (ITU-T H.264, 7.2 and 9.1)."""

_LONGEST_CODE = 32  # leading zeros of the longest ue(v); a longer run isn't one


class Unreadable(ValueError):
    """A header that ends too early, or holds what its standard doesn't allow."""


class BitReader:
    """Reads bits from the first on. Every method raises Unreadable past the end."""

    __slots__ = ("_left", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")  # the bits not read yet
        self._left = 8 * len(data)

    def bits(self, count: int) -> int:
        """Return the next `count` bits as an unsigned number, u(n)."""
        left = self._left - count
        if left < 0:
            raise Unreadable("past the end")
        found = self._value >> left
        self._value ^= found << left
        self._left = left
        return found

    def flag(self) -> int:
        """Return the next bit, u(1)."""
        left = self._left - 1
        if left < 0:
            raise Unreadable("past the end")
        found = self._value >> left
        if found:
            self._value ^= 1 << left
        self._left = left
        return found

    def skip(self, count: int) -> None:
        """Pass over `count` bits."""
        self.bits(count)

    def ue(self) -> int:
        """Return the next unsigned Exp-Golomb code, ue(v)."""
        length = self._value.bit_length()
        left = 2 * length - self._left - 1  # as many bits follow the first 1 as zeros precede it
        if left < 0 or self._left - length > _LONGEST_CODE:
            raise Unreadable("no whole code")
        found = self._value >> left
        self._value ^= found << left
        self._left = left
        return found - 1

    def se(self) -> int:
        """Return the next signed Exp-Golomb code, se(v)."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)

    def ue_upto(self, largest: int) -> int:
        """Return the next ue(v). Raises Unreadable above `largest`."""
        found = self.ue()
        if found > largest:
            raise Unreadable(f"{found} where {largest} is the most")
        return found
