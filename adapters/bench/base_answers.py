"""What SmolLM2-135M-Instruct answers greedily (fp32, its first sentences): text the base model already predicts."""

BASE_ANSWERS = (
    (
        "What is water made of?",
        "Water is a fundamental element that makes up almost all of the Earth's atmosphere. It is composed of two "
        "hydrogen atoms and one oxygen atom.",
    ),
    (
        "Why is the sky blue?",
        "The answer to this question lies in the intricate dance of light and color. The sky appears blue because of a "
        "phenomenon known as Rayleigh scattering.",
    ),
    (
        "What does a doctor do?",
        "A doctor is a medical professional who specializes in the diagnosis and treatment of diseases, as well as the "
        "prevention and treatment of medical conditions.",
    ),
    (
        "What is the largest ocean on Earth?",
        "The largest ocean on Earth is the Pacific Ocean, which is approximately 149.7 million square kilometers.",
    ),
    (
        "What do plants need to grow?",
        "Plants need a variety of nutrients to grow properly. They require a combination of carbon dioxide, water, and "
        "nutrients to survive.",
    ),
    (
        "What is the opposite of hot?",
        "The opposite of hot is cold. This is a fundamental concept in science and technology, where heat is often "
        "associated with warmth and light.",
    ),
    (
        "What is a noun?",
        "A noun is a word that refers to a specific object or idea. It can be a person, place, animal, or concept.",
    ),
    (
        "What do bees make?",
        "Bees are incredibly complex creatures with a remarkable array of adaptations that enable them to thrive in "
        "the vast expanse of the world.",
    ),
    (
        "What is gravity?",
        "Gravity is a fundamental concept in physics that describes the curvature of spacetime caused by the presence "
        "of mass.",
    ),
    (
        "What is an adjective?",
        "An adjective is a word that modifies a noun or a pronoun. It provides additional information about the noun, "
        "often adding descriptive features.",
    ),
    (
        "What is the heart for?",
        "The heart is a vital organ in the human body that plays a crucial role in the body's circulatory system.",
    ),
    (
        "What is the moon?",
        "The moon is a celestial body orbiting our planet. It's a satellite of Earth, and it's a beautiful sight to "
        "behold.",
    ),
)
"""(question, answer) pairs. They are data, not generated anew, so that the Datanet has one digest on every machine."""
