#!/usr/bin/env python3
"""The first figure of a report page as a file of its own: the picture in the README.

usage: docs/curve.py REPORT.html OUT.svg

README's docs/curve.svg is the quickstart's:
    ./quickstart && docs/curve.py results/runs/quickstart.html docs/curve.svg
"""
import re
import sys


def main():
    page = open(sys.argv[1], encoding="utf-8").read()
    style = re.search(r"<style>(.*?)</style>", page, re.S).group(1)
    figure = re.search(r"<figure.*?</figure>", page, re.S).group(0)
    svg = re.search(r"<svg viewBox=\"0 0 ([\d.]+) ([\d.]+)\"[^>]*>(.*?)</svg>", figure, re.S)
    width, height, drawing = float(svg.group(1)), float(svg.group(2)), svg.group(3)
    legend = re.findall(r"<span><svg[^>]*>(.*?)</svg>(.*?)</span>", figure, re.S)
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        out.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height + 24:g}">\n')
        out.write("<style>text{font-family:system-ui,sans-serif}" + style + "</style>\n")
        out.write(f'<rect width="{width:g}" height="{height + 24:g}" fill="var(--card)"/>\n')
        out.write(drawing)
        for i, (mark, name) in enumerate(legend):
            out.write(f'<g transform="translate({52 + 130 * i} {height})">{mark}'
                      f'<text class="tick" x="20" y="11">{name.strip()}</text></g>\n')
        out.write("</svg>\n")


main()
