"""Laboratory tests with a numeric result and the range that counts as normal.

Enters: nothing. Leaves: ``LABS``, by the way that a site writes them, split like the names of
``lexicon``: ``seen`` in every split, ``held_out`` in test notes only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lab:
    """A numeric test.

    Attributes:
        name: as the site writes it.
        low, high: ends of the reference range, in ``unit``.
        decimals: digits after the point of a value.
        unit: as written after a value.
    """

    name: str
    low: float
    high: float
    decimals: int
    unit: str


@dataclass(frozen=True, slots=True)
class Labs:
    """Tests that one way of writing uses; see ``lexicon.Names`` for the two halves."""

    seen: tuple[Lab, ...]
    held_out: tuple[Lab, ...]


def _labs(table: str) -> tuple[Lab, ...]:
    rows = []
    for line in table.strip().splitlines():
        for cell in line.strip().strip(";").split(";"):
            name, low, high, decimals, unit = (part.strip() for part in cell.split(","))
            rows.append(Lab(name, float(low), float(high), int(decimals), unit))
    return tuple(rows)


LABS: dict[str, Labs] = {
    "critical": Labs(
        _labs("""
            WBC, 4, 11, 1, K; Hgb, 12, 16, 1, g; plt, 150, 400, 0, K; Na, 135, 145, 0, mmol
            potassium, 3.5, 5, 1, mmol; Cr, 0.6, 1.2, 1, mg; BUN, 7, 20, 0, mg
            lactate, 0.5, 2, 1, mmol; glucose, 70, 140, 0, mg; troponin, 0, 0.04, 2, ng
            INR, 0.9, 1.1, 1, sec; magnesium, 1.7, 2.2, 1, mg; bili, 0.2, 1.2, 1, mg
            AST, 10, 40, 0, U; ALT, 7, 56, 0, U; pH, 7.35, 7.45, 2, units; pCO2, 35, 45, 0, mmHg
            pO2, 80, 100, 0, mmHg; CRP, 0, 10, 0, mg; procal, 0, 0.5, 2, ng; Hct, 36, 48, 0, %
            bicarb, 22, 28, 0, mmol; PTT, 25, 35, 0, sec; vanc trough, 10, 20, 1, mcg
            calcium, 8.5, 10.2, 1, mg; Cl, 98, 107, 0, mmol; albumin, 3.5, 5, 1, g
            UOP, 30, 100, 0, cc; CVP, 2, 8, 0, mmHg; MAP, 65, 100, 0, mmHg
        """),
        _labs("""
            ferritin, 20, 250, 0, ng; fibrinogen, 200, 400, 0, mg; haptoglobin, 30, 200, 0, mg
            LDH, 140, 280, 0, U; lipase, 10, 60, 0, U; ammonia, 15, 45, 0, mcg
            BNP, 0, 100, 0, pg; CK, 30, 200, 0, U; D-dimer, 0, 0.5, 1, mcg; iCal, 1.1, 1.3, 2, mmol
            phos, 2.5, 4.5, 1, mg; GGT, 8, 60, 0, U; anion gap, 8, 12, 0, mmol
            cortisol, 5, 25, 0, mcg; ESR, 0, 20, 0, mm; amylase, 30, 110, 0, U
            retic count, 0.5, 2.5, 1, %; SvO2, 60, 80, 0, %; tacro level, 5, 15, 1, ng
            osmolality, 275, 295, 0, mOsm
        """),
    ),
    "general": Labs(
        _labs("""
            hemoglobin, 12, 16, 1, g/dL; white blood cell count, 4, 11, 1, thousand
            platelet count, 150, 400, 0, thousand; sodium, 135, 145, 0, mmol/L
            potassium, 3.5, 5.1, 1, mmol/L; creatinine, 0.6, 1.2, 1, mg/dL
            hemoglobin A1c, 4, 5.6, 1, percent; LDL cholesterol, 50, 130, 0, mg/dL
            TSH, 0.4, 4.5, 1, mIU/L; glucose, 70, 100, 0, mg/dL; calcium, 8.5, 10.2, 1, mg/dL
            vitamin D, 30, 100, 0, ng/mL; PSA, 0, 4, 1, ng/mL; uric acid, 3.5, 7.2, 1, mg/dL
            albumin, 3.5, 5, 1, g/dL; magnesium, 1.7, 2.2, 1, mg/dL; iron, 60, 170, 0, mcg/dL
            digoxin level, 0.8, 2, 1, ng/mL; INR, 2, 3, 1, units; lithium level, 0.6, 1.2, 1, mmol/L
        """),
        _labs("""
            triglycerides, 50, 150, 0, mg/dL; free T4, 0.8, 1.8, 1, ng/dL
            prolactin, 4, 23, 0, ng/mL; bilirubin, 0.2, 1.2, 1, mg/dL; zinc, 60, 120, 0, mcg/dL
            phosphorus, 2.5, 4.5, 1, mg/dL; parathyroid hormone, 10, 65, 0, pg/mL
            transferrin saturation, 20, 50, 0, percent; homocysteine, 5, 15, 0, umol/L
            C-reactive protein, 0, 10, 0, mg/L; ceruloplasmin, 20, 60, 0, mg/dL
            microalbumin, 0, 30, 0, mg/g; testosterone, 300, 1000, 0, ng/dL
            estradiol, 15, 350, 0, pg/mL; rheumatoid factor, 0, 14, 0, IU/mL
            theophylline level, 5, 15, 1, mcg/mL
        """),
    ),
}
