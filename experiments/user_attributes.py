"""Does a chat model know whom it talks to: age, gender, education and status, from how the user speaks?

A logistic regression reads the attribute from the state of one token after each layer (Chen et al. 2024, "Designing a
dashboard for transparency and control of conversational AI", https://arxiv.org/abs/2406.07882). As there, a real model
is read at the end of "I think the age of this user is", written in its answer's place, after TalkTuner's conversations;
`microworld-chat` before the word of its answer that shows the attribute, and what betrays the user (a yacht, a cane) is
none of what probes were trained on. Beside it stands what a logistic regression of the words themselves tells.

    python experiments/user_attributes.py [--model smollm2.gguf] [--out DIR]

A minute on two cores.
"""

from dataclasses import dataclass
from pathlib import Path

import concepts
import depths
import jax
import numpy as np
import plotly.graph_objects as go
import runs
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from interp_jax import config, models
from interp_jax.data import conversations, tasks
from interp_jax.data.worlds.chat_words import CUES

FILES = {
    "age": "llama_age_1",
    "gender": "openai_gender_1",
    "education": "openai_education_three_classes_2",
    "status": "llama_socioeconomic_1",
}
NAMES = {"status": "socioeconomic status"}


@dataclass(frozen=True)
class Users:
    model: str
    n: int  # conversations
    n_messages: int  # of each that are read, from the first on; of the microworld all
    n_positions: int  # conversations of more tokens are left out
    l2: float
    seeds: tuple[int, ...]  # of the split
    out: Path


def of_world(cfg: Users, tokenizer) -> dict[str, concepts.Concept]:
    """Conversations up to the word that shows the attribute; groups are what betrays it."""
    found = {}
    for attribute, cues in CUES.items():
        task = tasks.user(jax.random.key(0), tokenizer, cfg.n, split="train", asked=attribute)
        texts, labels = concepts.words(tokenizer, task.clean, task.mask), list(map(str, task.attributes[attribute]))
        betray = [
            next(word for word in text.split() if word in cues[label])
            for text, label in zip(texts, labels, strict=True)
        ]
        found[attribute] = concepts.concept(texts, labels, betray)
    return found


def of_people(cfg: Users, tokenizer) -> dict[str, concepts.Concept]:
    """TalkTuner's conversations, each a group of its own."""
    found = {}
    for attribute, file in FILES.items():
        read = conversations.read(depths.data("talktuner") / f"{file}.zip")
        asked = f"I think the {NAMES.get(attribute, attribute)} of this user is"
        prompts, labels, chat = [], [], {"continue_final_message": True}
        for i in np.random.default_rng(0).permutation(len(read)):
            messages = read[i].messages[: cfg.n_messages]
            messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
            prompt = [*messages, {"role": "assistant", "content": asked}]
            if len(prompts) < cfg.n and len(tokenizer.encode(prompt, chat=chat)) <= cfg.n_positions:
                prompts.append(prompt)
                labels.append(read[i].label)
        if len(set(labels)) < 2:
            raise SystemExit(f"{file}: {len(labels)} conversations have at most {cfg.n_positions} tokens; raise it")
        found[attribute] = concepts.concept(prompts, labels, list(map(str, range(len(prompts)))), chat=chat)
    return found


def words_alone(these: concepts.Concept, train: np.ndarray) -> float:
    """Accuracy of a logistic regression of the words that the user and the assistant have said."""
    texts = [
        one if isinstance(one, str) else " ".join(message["content"] for message in one[:-1]) for one in these.prompts
    ]
    counts = CountVectorizer(binary=True).fit_transform(texts)
    fitted = LogisticRegression(max_iter=1000).fit(counts[train], these.y[train])
    return float(fitted.score(counts[~train], these.y[~train]))


def study(cfg: Users, model, tokenizer, these: concepts.Concept, begin) -> dict[str, np.ndarray]:
    """Accuracy by layer `[seed layer]`, and of the words alone `[seed]`."""
    begin("layers")
    x = concepts.states(model, tokenizer, these)
    accuracy, words = [], []
    for seed in cfg.seeds:
        begin(f"probes, seed {seed}")
        train = concepts.split(these, seed)
        accuracy.append(concepts.fit(x, these.y, train, cfg.l2)[1])
        words.append(words_alone(these, train))
    told = {"accuracy": np.stack(accuracy), "words": np.array(words)}
    return told | {"commonest": these.commonest, "n": len(these.y), "labels": list(these.names)}


def story(found: dict[str, dict]) -> str:
    said = []
    for attribute, of in found.items():
        mean = of["accuracy"].mean(0)
        said.append(f"{attribute} {mean.max():.2f} after layer {mean.argmax()} (words {of['words'].mean():.2f})")
    return f"At its best layer a probe tells {', '.join(said)}."


def draw(cfg: Users, found: dict[str, dict]) -> go.Figure:
    figure = go.Figure(layout={"title": f"What {Path(cfg.model).name} holds of the user"})
    for attribute, of in found.items():
        runs.curve(figure, of["accuracy"], name=attribute, mode="lines+markers")
    return figure.update_layout(xaxis_title="after layer (0: embeddings)", yaxis_title="accuracy on other users")


def main(cfg: Users) -> dict[str, dict]:
    """What `study` finds of each attribute, by its name."""
    model, tokenizer = models.load(cfg.model, dtype="float32")
    sets = of_world(cfg, tokenizer) if cfg.model.startswith("microworld") else of_people(cfg, tokenizer)
    found: dict[str, dict] = {}

    def one(attribute: str, begin) -> dict[str, np.ndarray]:
        found[attribute] = study(cfg, model, tokenizer, sets[attribute], begin)
        runs.write("user_attributes", cfg, found)
        return {}

    runs.each(list(sets), 1 + len(cfg.seeds), "attributes", one, lambda _: None)
    about = f"{cfg.model}: accuracy on users not trained on, split anew by seeds {list(cfg.seeds)}, mean ± spread"
    rows = [
        {
            "attribute": f"{attribute}: {', '.join(of['labels'])}",
            "n": of["n"],
            "commonest": f"{of['commonest']:.2f}",
            "words": runs.cell(of["words"]),
            "embeddings": runs.cell(of["accuracy"][:, 0]),
            "best layer": f"{of['accuracy'].mean(0).max():.2f} at {of['accuracy'].mean(0).argmax()}",
            "last layer": runs.cell(of["accuracy"][:, -1]),
        }
        for attribute, of in found.items()
    ]
    runs.finish("user_attributes", cfg, found, draw(cfg, found), about, runs.table(rows), story(found))
    return found


if __name__ == "__main__":
    main(config.load(Users, "configs/user_attributes.toml"))
