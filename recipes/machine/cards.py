"""What cards have and do at most: memory, arithmetic, and bytes through their memory and over the bus. No torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A card's memory in GiB, and what it does at most a second.

    That is `flops` of a large bf16 product, bytes through its own `memory`, and bytes over the `bus` from the host.
    """

    gib: float
    flops: float
    memory: float
    bus: float


# By the names that NVIDIA gives them. Arithmetic in bf16 with sums in fp32, dense, is four times their fp32 arithmetic:
# two operations a core and cycle. The bus is what eight lanes of PCIe 4.0 give of their 15.8 GB/s.
#
# RTX A1000: 2,304 cores at 1,460 MHz, 192 GB/s, as NVIDIA announced it (avalanchenoticias.com.br,
# "Nvidia apresentou placas gráficas profissionais RTX A1000 e RTX A400"). Laptop GPU of 4 GB: 2,048 cores at 1,140 MHz,
# 176 GB/s (fpsbench.com, "NVIDIA RTX A1000 Mobile"). Laptop GPU of 6 GB: 2,560 cores at 1,140 MHz (technical.city,
# "Quadro T2000 (mobile) vs RTX A1000 Mobile 6 GB"); for its 168 GB/s, 96 bits at 14 Gb/s, no page was found. A laptop's
# own limit of power can make it slower.
# H100: a large product ran at 750e12 and the bus at 54e9 here (benchmarks/README.md); 3.35e12 by NVIDIA's data sheet.
CARDS = {
    "RTX A1000": Card(gib=8, flops=26.9e12, memory=192e9, bus=12e9),
    "RTX A1000 Laptop 4 GB": Card(gib=4, flops=18.7e12, memory=176e9, bus=12e9),
    "RTX A1000 Laptop 6 GB": Card(gib=6, flops=23.3e12, memory=168e9, bus=12e9),
    "H100 80GB HBM3": Card(gib=79, flops=750e12, memory=3350e9, bus=54e9),
}
ASSUMED = "RTX A1000"  # whose rates are taken for a card of which its memory alone is known
