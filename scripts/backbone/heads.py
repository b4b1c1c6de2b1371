"""The last word of a phrase in, the kind of thing that the phrase names out, where it tells."""

from __future__ import annotations

import re

_EXAM = frozenset(
    "scan scans biopsy biopsies culture cultures exam exams examination ultrasound sonogram mri ct "
    "level levels panel assay analysis count counts stain smear screening screen titer measurement "
    "radiograph xray ray rays ekg ecg eeg emg electrocardiogram echocardiogram angiogram mammogram "
    "test tests testing imaging urinalysis profile study studies workup evaluation pressure".split()
)
_EXAM_SUFFIX = re.compile(r"\w{4,}(graphy|scopy|gram|metry)$")
_OPERATION = frozenset(
    "surgery surgeries repair removal transplant transplantation replacement therapy therapies "
    "chemotherapy radiotherapy radiation transfusion resection procedure procedures operation "
    "vaccination counseling dialysis rehabilitation bypass graft excision ablation amputation "
    "treatment treatments catheterization catheter intubation ventilation ventilator drainage "
    "insertion placement irrigation implant implantation stent pacemaker splint brace cast shunt "
    "injection extraction massage diet exercises reduction lift augmentation dressing tube "
    "oxygen ventilator suction sutures care".split()
)
_OPERATION_SUFFIX = re.compile(r"\w{3,}(ectomy|plasty|ostomy|otomy|pexy|desis)$")
_DISORDER = frozenset(
    "disease diseases syndrome disorder disorders deficiency cancer tumor tumors failure infection "
    "infections pain anemia injury defect defects abnormality abnormalities loss swelling "
    "inflammation weakness seizures bleeding fracture ulcer ulcers rash fever carcinoma sarcoma "
    "lymphoma leukemia neuropathy cyst cysts lesion lesions dysplasia atrophy palsy obstruction "
    "stenosis fatigue nausea vomiting diarrhea constipation headache cough edema".split()
)
_DISORDER_SUFFIX = re.compile(r"\w{3,}(itis|emia|osis|oma|pathy|algia|plegia|penia|uria|trophy)$")


def class_of_head(word: str) -> str | None:
    """A class of ``weak_labels.CLASS_WORDS``, or None."""
    if word in _EXAM or _EXAM_SUFFIX.match(word):
        return "exam"
    if word in _OPERATION or _OPERATION_SUFFIX.match(word):
        return "operation"
    if word in _DISORDER or _DISORDER_SUFFIX.match(word):
        return "disorder"
    return None
