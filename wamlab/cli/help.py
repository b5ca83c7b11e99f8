"""What each command teaches about itself."""

from __future__ import annotations

from dataclasses import dataclass

ABOUT = """\
World Action Models: collect, train, roll out, imagine, execute the imagination, judge.
`wam demo` goes the whole way once; `wam COMMAND --help` explains one step of it."""


@dataclass(frozen=True)
class Teach:
    """A command in a few words, in one paragraph, and as it is typed."""

    short: str
    about: str
    example: str


COMMANDS = {
    "demo": Teach(
        "the main job, from demonstrations to a report",
        """\
The main job: collect demonstrations, train `uwm` (eight minutes at most), roll it out on new
starts, execute what it imagined, and write a report; the last line says where the report is.
--quick does the same with one task and a tiny model in about two minutes.""",
        "wam demo --quick --out runs/first",
    ),
    "list": Teach(
        "what there is: models, envs, recipes, metrics",
        """\
What there is, by name. For each model: the queries that it answers, and what its answers are (drawn
or fixed, future and action in one draw or not, in which space the future is).""",
        "wam list models",
    ),
    "collect": Teach(
        "scripted demonstrations into a LeRobot v3.0 dataset",
        """\
Scripted demonstrations into a LeRobot v3.0 dataset. The experts vary their route and speed, and are
pushed off their way in short bursts. A collection that was interrupted opens with every finished
episode in it, and the same command goes on with it.""",
        "wam collect --env metaworld/dial-turn --episodes 50 --out data/dial-turn",
    ),
    "data inspect": Teach(
        "what a dataset is",
        """\
What a dataset is: episodes, views, spaces, instructions; with a contact sheet of frames and a plot
that shows whether actions and observations are aligned.""",
        "wam data inspect data/dial-turn",
    ),
    "data check": Teach(
        "what is wrong with a dataset",
        """\
What is wrong with a dataset: damaged or missing files, NaN, actions outside their space,
misaligned columns. One line for each fault, the worst first. Exit code 1 when one of them is an
error; warnings alone give 0.""",
        "wam data check data/dial-turn",
    ),
    "train": Teach(
        "a recipe on a dataset, into a run folder with checkpoints",
        """\
Train a recipe, named PROTOCOL/MODEL, on a dataset. --minutes times the first seconds and then fixes
the number of steps, so that everything afterwards is a function of the step; --resume continues, on
a CPU bit for bit. --dry-run trains nothing and prints parameters, tokens, GFLOPs, memory and
minutes; like training it decodes the dataset into the cache, once.""",
        "wam train mw-demo/uwm --data data/demo --out runs/uwm --minutes 10",
    ),
    "eval": Teach(
        "a checkpoint in closed loop, or open loop on recorded episodes",
        """\
Closed-loop rollouts of a checkpoint on evaluation starts, everything logged. Several environments
share one model call; a row's result does not depend on the others. --env takes environments and
suites (see: wam list envs). --set rollout.sentence=1 says a paraphrase that training never saw,
swapped (in scene) what it said for another task, empty nothing. --set rollout.shift=light changes
one thing that was the same in all training: camera, distractors, friction, gain, light, paraphrase,
start or texture. The blind rows of the environments that have one are saved beside the episodes.

Without a simulator, --dataset asks the model at instants of recorded episodes instead: how far its
actions are from the recorded ones, how near its imagined frames come to the recorded ones, beside
rivals that need no model, and how likely the recording was. Episodes that the run held out
(data.held_out) are taken where there are some; `wam report` shows the result either way.""",
        "wam eval runs/uwm --env mw-demo --episodes 40 --out runs/uwm",
    ),
    "probe": Teach(
        "imagine from saved states, then execute the whole chunk from each",
        """\
Save states along expert episodes; from each, let the model imagine and act jointly, execute the
whole chunk, put the state back, and log what was imagined beside what happened, with controls. It
is the raw material of the joint measures. With --data, the frames of rivals that need no model are
logged beside the imagined ones. With --readers, state readers see where the hand and the objects
are in the imagined frames, and the joint measures are taken on places as well as on pixels.
With --judge, inverse dynamics trained on demonstrations alone read the actions off the frames: does
the imagined future hold the action that it came with? (A model that answers INVERSE is always asked
the same of itself.)
""",
        "wam probe runs/uwm --env mw-demo --data data/demo --readers runs/readers --out runs/uwm",
    ),
    "imagine": Teach(
        "one imagined future beside what really happened, as a GIF or MP4",
        """\
One imagined future beside what really happened when the action imagined with it was executed, as a
GIF or MP4.""",
        "wam imagine runs/uwm --env metaworld/door-unlock --out imagined.gif",
    ),
    "report": Teach(
        "one HTML file from the logs alone",
        """\
(Re)build results.json and the one-file HTML report from the logs of a folder, without model or
simulator. Where there are probes, whatif.html beside it shows them state by state: pick an action
to impose, and see what was imagined beside what happened. LPIPS and the distances of features need
published weights (wam weights); without them the report says so. --features compares by another
network: MobileNetV2, VGG16, or one of a file of yours (I3D, Inception, SSCD, DreamSim as
TorchScript; DINOv2, V-JEPA2 as a transformers folder).""",
        "wam report runs/demo/uwm",
    ),
    "compare": Teach(
        "runs side by side, paired on what they share",
        """\
Runs side by side, from their logs alone: success on the starts that both have played, imagination
on the states that both have probed, actions and futures at the recorded instants at which both were
asked; every difference paired and with its interval. Where it cannot tell two runs apart it says
so. Of recordings it also says what future and action know of each other, where one run or two
together have the likelihoods for it.""",
        "wam compare runs/uwm runs/reactive --out comparison.html",
    ),
    "export": Teach(
        "an episode or probe as a Rerun recording",
        """\
The log of one episode or probe as a Rerun recording (.rrd): frames, what was imagined, poses and
actions over steps. Needs the extra wamlab[rerun].""",
        "wam export runs/uwm/probes/metaworld__door-unlock/2000000-12.npz --out state.rrd",
    ),
    "verify": Teach(
        "every byte of a checkpoint or dataset against its manifest",
        """\
Every byte of a checkpoint or dataset against its manifest. Exit code 1 when one is not what was
written.""",
        "wam verify runs/uwm",
    ),
    "weights": Teach(
        "published weights of LPIPS and MobileNetV2, from the packages that ship them",
        """\
Published weights that measures use: which there are, under which licence, and what gets them. With
a name, read them from the installed package (only the file whose digest is known, by a reader that
runs nothing of it) and keep them as safetensors in the user's cache, or in WAMLAB_WEIGHTS.""",
        "wam weights lpips-alex",
    ),
}
