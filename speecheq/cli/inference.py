"""The commands that use a trained model: predict, embed, align, listen, package, export-model, compare-models."""

from argparse import Namespace
from pathlib import Path

from speecheq.cli.options import Commands, add_command
from speecheq.common.command_line import positive_whole
from speecheq.common.device import DEVICES
from speecheq.inference import align_command, embed_command, predict_command


def _listen(options: Namespace) -> None:
    from speecheq.inference.predictor import Predictor
    from speecheq.inference.trained_model import load_trained_model
    from speecheq.inference.web_page import serve

    model = load_trained_model(options.model, options.device)
    title = f"SpeechEQ: {Path(options.model).name}" if options.model else "SpeechEQ"
    predictor = Predictor(model, gender=bool(model.labels.genders), reject=options.reject)
    if options.reject is not None:
        predict_command.log_rejection(predictor, options.reject)
    serve(predictor, title, options.host, options.port)


def _package(options: Namespace) -> None:
    from speecheq.inference.model_folder import write

    write(options.experiment, options.out, options.name, options.licence, options.scores_of, options.measured)


def _export_model(options: Namespace) -> None:
    from speecheq.inference.export import export_model

    export_model(options.model, options.out, options.int8)


def _compare_models(options: Namespace) -> None:
    from speecheq.inference.compare_exports import as_text, compare_models

    print(as_text(compare_models(options.experiment, options.msud, options.models)))


def add_commands(commands: Commands) -> None:
    """Add predict, embed, align, listen, package, export-model and compare-models."""
    predict = add_command(commands, "predict", predict_command.run, "Predict the emotions in recordings.")
    predict_command.add_arguments(predict)

    embed = add_command(commands, "embed", embed_command.run, "Write embeddings of recordings to a file.")
    embed_command.add_arguments(embed)

    align = add_command(commands, "align", align_command.run, "Find when the phones and words of a text are spoken.")
    align_command.add_arguments(align)

    listen = add_command(commands, "listen", _listen, "Serve a page that predicts what a microphone or a file gives.")
    predict_command.add_reject(listen)
    add = listen.add_argument
    add("--model", metavar="MODEL", help="model to use, named as for speecheq predict")
    add("--device", choices=DEVICES, default="auto", help="where the model runs")
    add(
        "--host",
        default="127.0.0.1",
        help="address to serve at; with 0.0.0.0 whoever reaches this machine may use the page (default: 127.0.0.1)",
    )
    add("--port", type=positive_whole, default=7860, help="TCP port to serve at (default: 7860)")

    add = add_command(commands, "package", _package, "Make a model folder of a trained and scored fold.").add_argument
    experiment_help = "folder of a trained and scored fold, such as exp/.../fold1/seed1"
    add("experiment", type=Path, metavar="EXPERIMENT", help=experiment_help)
    add("out", type=Path, metavar="FOLDER", help="model folder to write")
    add("--name", default="", help="title of the model card (default: the folder's name)")
    add("--licence", default="", help="licence of the weights, such as apache-2.0")
    add(
        "--scores-of",
        type=Path,
        metavar="FOLDS",
        help="of a model that was trained on all clips (protocol all): the folder of the folds of the same system, "
        "such as exp/SYSTEM/TARGET.speaker, whose scores the card shows",
    )
    add("--measured", type=Path, metavar="FILE", help="Markdown of what else was measured, which the card shows too")

    add = add_command(
        commands, "export-model", _export_model, "Write a trained model as ONNX or for torch.export."
    ).add_argument
    add("model", metavar="MODEL", help="a best.pt, a model folder or a hub id")
    add("out", type=Path, metavar="FILE", help="file to write, which ends in .onnx or .pt2")
    add("--int8", action="store_true", help="keep the weights of an ONNX file in 8 bits")

    add = add_command(
        commands, "compare-models", _compare_models, "Score forms of a model on a fold's test clips."
    ).add_argument
    add("experiment", type=Path, metavar="EXPERIMENT", help=experiment_help)
    add("models", nargs="+", metavar="MODEL", help="models such as model.onnx model.int8.onnx")
    add("--msud", type=Path, required=True, help="folder of MsUD, such as data/msud/casia.random10")
