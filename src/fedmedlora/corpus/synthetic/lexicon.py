"""Names of the open classes: problems, tests, treatments, drugs and body locations.

Enters: nothing. Leaves: for each class, groups of names split in two: ``seen`` names may stand in
any note, ``held_out`` names in test notes only. A held-out name is never part of a seen name, so
that training and validation notes cannot contain one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """A group of names that can stand in the same slot of a sentence.

    Attributes:
        seen: names for notes of every split.
        held_out: names for test notes alone.
    """

    seen: tuple[str, ...]
    held_out: tuple[str, ...]


def _names(seen: str, held_out: str) -> Names:
    return Names(
        tuple(" ".join(name.split()) for name in seen.split(",")),
        tuple(" ".join(name.split()) for name in held_out.split(",")),
    )


PROBLEMS: dict[str, Names] = {
    "critical": _names(
        """resp failure, septic shock, sepsis, ARDS, AKI, PNA, GI bleed, DKA, PE, STEMI, NSTEMI,
        afib, CHF, cardiogenic shock, lactic acidosis, hyperkalemia, hyponatremia, delirium,
        encephalopathy, seizure, VAP, pneumothorax, hypotension, bradycardia, thrombocytopenia,
        ileus, pancreatitis, SAH, SDH, cardiac arrest, coagulopathy, anasarca, hypoxia,
        tachycardia, leukocytosis, bacteremia, pleural effusion, pulm edema, UTI, DIC,
        hypernatremia, rhabdo, status epilepticus, tamponade, variceal bleed, liver failure,
        hypercapnia, C diff colitis, SVT, oliguria, atelectasis, mucus plugging, aspiration PNA,
        cerebral edema, hypovolemia, hypothermia, ESRD, GPC bacteremia, multiorgan failure,
        metabolic alkalosis, RV failure, brain abscess, line infection, necrotizing fasciitis""",
        """hypophosphatemia, endocarditis, myocarditis, mediastinitis, empyema, hemothorax,
        fungemia, candidemia, urosepsis, hypokalemia, hypocalcemia, TTP, HLH, torsades, VTach,
        mesenteric ischemia, cholangitis, meningitis, peritonitis, SIADH, methemoglobinemia,
        hyperammonemia, ICH, hepatic necrosis, bronchospasm, azotemia, acidemia, neutropenia,
        asystole, chylothorax, compartment syndrome, ventriculitis, hydrocephalus, vasospasm,
        hemolysis, hypercalcemia, pancytopenia, tracheitis, barotrauma, anoxic injury""",
    ),
    "chronic": _names(
        """hypertension, type 2 diabetes, asthma, migraine, osteoarthritis, rheumatoid arthritis,
        depression, anxiety, hypothyroidism, gout, psoriasis, eczema, hyperlipidemia, obesity,
        insomnia, acid reflux, COPD, chronic kidney disease, glaucoma, osteoporosis, endometriosis,
        irritable bowel syndrome, ulcerative colitis, epilepsy, Parkinson disease, breast cancer,
        colon cancer, prostate cancer, melanoma, lupus, fibromyalgia, anemia, sleep apnea,
        allergic rhinitis, sinusitis, bronchitis, diverticulosis, hepatitis C, celiac disease,
        vertigo, plantar fasciitis, sciatica, carpal tunnel syndrome, rosacea, acne, leukemia,
        macular degeneration, restless legs syndrome, bipolar disorder, coronary artery disease,
        heart failure, prediabetes, dementia, Alzheimer disease, peripheral artery disease,
        tendinitis, conjunctivitis, gastritis, hyperthyroidism, kidney stones""",
        """sarcoidosis, scleroderma, polymyalgia rheumatica, Crohn disease, spondylitis,
        Graves disease, acromegaly, hemochromatosis, thalassemia, multiple sclerosis,
        myasthenia gravis, narcolepsy, interstitial cystitis, vitiligo, lichen planus, uveitis,
        keratoconus, tinnitus, lymphoma, ovarian cancer, pancreatic cancer, retinopathy,
        neuropathy, nephrolithiasis, gastroparesis, blepharitis, bursitis, costochondritis,
        alopecia, hidradenitis, sialadenitis, labyrinthitis, trigeminal neuralgia,
        Sjogren syndrome, dermatomyositis, arteritis, agoraphobia, hyperparathyroidism,
        polycythemia, Addison disease, epicondylitis, osteopenia""",
    ),
    "inpatient": _names(
        """pneumonia, cellulitis, deep vein thrombosis, pulmonary embolism, acute kidney injury,
        urinary tract infection, small bowel obstruction, hip fracture, stroke,
        atrial fibrillation, congestive heart failure, cholecystitis, appendicitis,
        diverticulitis, pyelonephritis, syncope, dehydration, gastrointestinal bleeding,
        myocardial infarction, COPD exacerbation, gastroenteritis, osteomyelitis,
        alcohol withdrawal, hypoglycemia, transient ischemic attack, rib fracture,
        pressure ulcer, incisional hernia, constipation, malnutrition, cirrhosis, ascites,
        hyperglycemia, wound infection, unstable angina, aortic stenosis, hypertension,
        type 2 diabetes, anemia, postoperative ileus, urinary retention, duodenal ulcer,
        diabetic foot infection, acute pancreatitis, aspiration pneumonia""",
        """pericarditis, cholelithiasis, choledocholithiasis, volvulus, intussusception,
        myelitis, discitis, prostatitis, epididymitis, orchitis, tonsillitis,
        epiglottitis, mastoiditis, aortic dissection, heart block, pelvic fracture,
        patellar fracture, subdural hematoma, pneumonitis, esophagitis, hyperbilirubinemia,
        rhabdomyolysis, toxic megacolon, proctitis, pyloric stenosis, pulmonary infarct,
        pseudoaneurysm, mitral regurgitation, cardiomyopathy, hematemesis, lymphangitis,
        bronchiectasis, hypoalbuminemia, bowel perforation, splenic rupture, glomerulonephritis""",
    ),
    "symptom": _names(
        """fever, chills, nausea, vomiting, diarrhea, cough, headache, dizziness, fatigue, dyspnea,
        chest pain, palpitations, weight loss, confusion, wheezing, sore throat, back pain,
        shortness of breath, abdominal pain, lightheadedness, joint pain, runny nose, bloating,
        heartburn, tremor, agitation, sputum production, leg swelling, congestion, drowsiness,
        poor appetite, hot flashes, dry mouth, ear pain, neck stiffness, muscle aches""",
        """pruritus, dysuria, hematuria, photophobia, diplopia, dysphagia, odynophagia, melena,
        rigors, diaphoresis, malaise, anorexia, paresthesias, orthopnea, hoarseness, hiccups,
        polyuria, polydipsia, myalgias, arthralgias, tenesmus, dysphonia, night sweats,
        blurred vision, nocturia, dyspepsia, flatulence, epistaxis, presyncope, claudication""",
    ),
    "local": _names(
        """pain, swelling, rash, numbness, weakness, tenderness, ulcer, bruising, erythema,
        stiffness, mass, tingling, itching, abscess, laceration, edema, fracture, lesion, spasm,
        cyst, tightness, soreness, redness, skin tear, discharge, infection""",
        """ecchymosis, induration, crepitus, contracture, paresis, blistering, hematoma, abrasion,
        dysesthesia, hyperpigmentation, scaling, excoriation, petechiae, cramping, clubbing,
        atrophy, laxity, purpura, papules, discoloration, throbbing, fluctuance""",
    ),
}

TREATMENTS: dict[str, Names] = {
    "critical": _names(
        """intubation, CRRT, HD, BiPAP, HFNC, proning, central line, arterial line, chest tube,
        PRBC transfusion, cardioversion, ECMO, fluid bolus, tube feeds, trach, PEG, mech vent,
        foley, NG decompression, active cooling, chest PT, extubation, lung protective vent,
        line exchange, early mobility, wound vac, bicarb drip, restraints, CPR, suctioning""",
        """plasmapheresis, IABP, thoracentesis, paracentesis, pericardiocentesis, EVD, TIPS, FFP,
        cryo, defibrillation, embolization, thrombectomy, fasciotomy, escharotomy, TPN,
        decannulation, pleurodesis, pacing, craniectomy, laparotomy, rewarming""",
    ),
    "clinic": _names(
        """physical therapy, cognitive behavioral therapy, cataract surgery, knee replacement,
        CPAP, radiation therapy, acupuncture, chiropractic care, massage therapy,
        dental extraction, orthotics, joint injection, weight loss surgery, low sodium diet,
        smoking cessation counseling, hysterectomy, tonsillectomy, mastectomy, vasectomy,
        speech therapy, occupational therapy, wrist splint, compression stockings, phototherapy,
        laser treatment, tubal ligation, hip replacement, psychotherapy, light therapy,
        stretching exercises, nasal irrigation, dietary counseling, rotator cuff repair,
        root canal""",
        """biofeedback, lumpectomy, septoplasty, vestibular rehabilitation, cryotherapy,
        brachytherapy, electroconvulsive therapy, gastric banding, blepharoplasty, keratoplasty,
        myringotomy, myomectomy, bunionectomy, hydrotherapy, iontophoresis, ketogenic diet,
        hypnotherapy, vertebroplasty, meniscectomy, allergen immunotherapy, photocoagulation,
        sclerotherapy, lithotripsy, pelvic floor exercises""",
    ),
    "surgical": _names(
        """appendectomy, cholecystectomy, coronary artery bypass grafting,
        cardiac catheterization, hip pinning, colectomy, hemodialysis, blood transfusion,
        wound debridement, pacemaker placement, hernia repair, stent placement, oxygen therapy,
        intravenous fluids, incision and drainage, skin graft, thyroidectomy, nephrectomy,
        wound care, dressing changes, bowel rest, splinting, home oxygen, physical therapy,
        bowel resection, gastric lavage, port placement, cast placement, tracheostomy""",
        """splenectomy, gastrectomy, esophagectomy, carotid endarterectomy, valve replacement,
        thoracotomy, nephrostomy, ileostomy, laminectomy, kyphoplasty, arthroscopy,
        pancreatectomy, lobectomy, cystectomy, adrenalectomy, percutaneous drainage,
        sphincterotomy, traction, hyperbaric oxygen, fundoplication, ureteral stenting,
        external fixation""",
    ),
}

STUDIES: dict[str, Names] = {
    "critical": _names(
        """CXR, CT head, CT abd, TTE, EKG, BCx, UCx, ABG, EEG, bronch, CT chest, KUB, RUQ US,
        sputum cx, UA, MRI brain, resp viral panel, CT angio, tele, vent wean trial""",
        """TEE, MRCP, LE duplex, HIDA scan, V/Q scan, CTA neck, stool studies, TCD, LP,
        CSF gram stain, cosyntropin test, VBG, EGD, swallow eval, bladder pressure""",
    ),
    "general": _names(
        """chest x-ray, MRI of the brain, CT of the abdomen, mammogram, colonoscopy,
        electrocardiogram, stress test, bone density scan, urinalysis, urine culture,
        echocardiogram, pulmonary function test, skin biopsy, abdominal ultrasound,
        blood culture, Pap smear, sleep study, eye exam, head CT, rapid strep test""",
        """spirometry, audiogram, electromyography, capsule endoscopy, cystoscopy, tympanometry,
        fundus photography, barium swallow, renal scintigraphy, arthrography, carotid duplex,
        Holter monitor, liver elastography, bone marrow biopsy, lumbar puncture, PET scan,
        patch testing, tilt table test, manometry, angiography""",
    ),
}

LOCATIONS = _names(
    """left knee, right knee, left shoulder, right shoulder, lower back, abdomen, chest, neck,
    left hip, right hip, left leg, right leg, left arm, right arm, trunk, face,
    right lower quadrant, left lower quadrant, epigastrium, right foot, left foot, left hand,
    right hand, left ankle, right ankle, upper back, scalp, right calf, left calf, sacrum, groin""",
    """left elbow, right temple, left thigh, right flank, jaw, left shin, left axilla, right heel,
    left buttock, perineum, right forearm, sternum, left eyelid, right great toe, right elbow,
    left forearm""",
)

DRUGS: dict[str, Names] = {
    "iv": _names(
        """vanc, zosyn, cefepime, norepi, fentanyl, propofol, midaz, heparin, lasix, levophed,
        amio, dilt, insulin, meropenem, ceftriaxone, pantoprazole, dexmedetomidine, ketamine,
        vasopressin, epinephrine, lorazepam, keppra, phenylephrine, flagyl, azithro, mannitol,
        morphine, dilaudid, KCl, methylpred, nicardipine, labetalol, esmolol, potassium,
        magnesium, calcium, digoxin, cefazolin, ampicillin, hydrocortisone""",
        """dapto, linezolid, micafungin, ertapenem, milrinone, dobutamine, cisatracurium,
        rocuronium, etomidate, argatroban, bivalirudin, alteplase, octreotide, bumetanide,
        fosphenytoin, lacosamide, clevidipine, isavuconazole, tigecycline, colistin,
        procainamide, lidocaine, remifentanil, ampho, caspofungin, aztreonam, nafcillin,
        gentamicin, tobramycin, phosphate""",
    ),
    "tablet": _names(
        """metformin, lisinopril, atorvastatin, amlodipine, metoprolol, warfarin, apixaban,
        furosemide, prednisone, levothyroxine, losartan, hydrochlorothiazide, aspirin,
        clopidogrel, simvastatin, carvedilol, glipizide, sertraline, escitalopram, trazodone,
        allopurinol, ciprofloxacin, levofloxacin, amiodarone, spironolactone, acetaminophen,
        ibuprofen, naproxen, oxycodone, tramadol, ondansetron, montelukast, cetirizine,
        famotidine, methotrexate, buspirone, bupropion, lamotrigine, topiramate, enalapril,
        propranolol, rosuvastatin, sitagliptin, digoxin, iron, potassium, calcium, magnesium,
        folic acid, vitamin D, Tylenol, Lipitor, Coumadin, Lasix, Eliquis, Zoloft""",
        """quinapril, ramipril, benazepril, bisoprolol, nebivolol, nadolol, pitavastatin,
        fluvastatin, pravastatin, valsartan, olmesartan, telmisartan, rivaroxaban, ticagrelor,
        prasugrel, torsemide, chlorthalidone, glimepiride, linagliptin, empagliflozin,
        dapagliflozin, citalopram, mirtazapine, quetiapine, olanzapine, aripiprazole,
        febuxostat, colchicine, moxifloxacin, eszopiclone, baclofen, methocarbamol, meloxicam,
        loratadine, sumatriptan, rizatriptan, methimazole, letrozole, zinc, Crestor, Plavix,
        Xarelto, Benicar""",
    ),
    "capsule": _names(
        """omeprazole, gabapentin, duloxetine, fluoxetine, doxycycline, cephalexin, amoxicillin,
        tamsulosin, celecoxib, venlafaxine, pregabalin, diltiazem, clindamycin, docusate,
        hydroxyurea, Prilosec, Cymbalta, Flomax""",
        """esomeprazole, lansoprazole, nortriptyline, minocycline, cefdinir, oseltamivir,
        dutasteride, ziprasidone, mexiletine, dabigatran, Nexium, Pradaxa""",
    ),
    "inhaler": _names(
        """albuterol, fluticasone, tiotropium, ipratropium, budesonide, salmeterol, Spiriva,
        Advair""",
        """levalbuterol, mometasone, umeclidinium, ciclesonide, formoterol, Symbicort""",
    ),
    "cream": _names(
        """hydrocortisone, mupirocin, clotrimazole, triamcinolone, ketoconazole, silver
        sulfadiazine, nystatin, diclofenac""",
        """betamethasone, clobetasol, terbinafine, permethrin, tacrolimus, desonide""",
    ),
    "drops": _names(
        """latanoprost, timolol, artificial tears, ofloxacin, prednisolone, brimonidine""",
        """travoprost, bimatoprost, dorzolamide, ketorolac, cyclosporine""",
    ),
    "pen": _names(
        """insulin glargine, insulin lispro, enoxaparin, liraglutide, semaglutide, Lantus,
        Lovenox""",
        """insulin degludec, insulin aspart, dulaglutide, fondaparinux, exenatide, Trulicity""",
    ),
    "liquid": _names(
        """lactulose, guaifenesin, sucralfate, polyethylene glycol, nystatin, levetiracetam,
        milk of magnesia""",
        """promethazine, simethicone, valproate, azathioprine, itraconazole, megestrol""",
    ),
}
