"""The report of a run: one file, with all that the run left."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from fedenhance.reports.html import write_report
from tests.fedenhance import finished

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Collects headings, table rows, and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.rows, self.sources, self.inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        if tag == "tr":
            self.rows.append([])
        self.sources += [v for k, v in attributes if k in ("src", "href", "data")]

    def handle_data(self, data):
        if self.inside == "h2" and data.strip():
            self.headings.append(data.strip())
        elif self.inside in ("td", "th", "meter") and data.strip():
            self.rows[-1].append(data.strip())

    def handle_endtag(self, tag):
        if tag in ("h2", "td", "th"):
            self.inside = None


@pytest.fixture
def folder(tmp_path):
    """A finished run of two clients, the second of which failed once."""
    folder = finished.write_run(tmp_path, "run").folder
    (folder / "test_metrics.csv").write_text(
        "id,n_noises,si_sdr_in,si_sdr,si_sdri\n"
        "a-1,1,0.0,4.0,4.0\nb-1,1,2.0,1.0,-1.0\na-2,2,0.0,3.0,3.0\n"
    )
    (folder / "clients.csv").write_text(
        "round,client,status,seconds,examples,weight,loss,hours\n"
        "1,0,ok,1,30,0.75,-5.0,0.5\n1,<b>,ok,1,10,0.25,-4.0,0.25\n"
        "2,0,ok,1,30,1.0,-6.0,0.5\n2,<b>,Error: lost,1,,0.0,,\n"
    )
    (folder / "audio").mkdir()
    for kind in ("noisy", "enhanced", "clean"):
        soundfile.write(folder / f"audio/a-1_{kind}.wav", np.zeros(800), 8000)
    return folder


def report(folder, **settings):
    write_report(None, None, {"output_folder": folder, "batch_size": 4, **settings})
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_shows_scores_and_what_each_client_contributed(folder):
    page = Page(report(folder))
    assert page.headings == ["Test set", "Training", "Clients", "Audio", "Settings"]
    assert ["1", "2", "1.00", "2.50", "1.50", "1.50", "50 %"] in page.rows
    assert ["0", "2", "0", "60", "1.00", "87.5%", "-6.00"] in page.rows
    assert ["<b>", "1", "1", "10", "0.25", "12.5%", "-4.00"] in page.rows
    assert ["batch_size", "4"] in page.rows


def test_nothing_is_fetched(folder):
    text = report(folder)
    page = Page(text)
    kinds = {source.split(",")[0] for source in page.sources if source[0] != "#"}
    assert kinds == {"data:audio/flac;base64", "data:image/png;base64"}
    assert len(page.sources) >= 3
    assert not re.search(r"@import|url\((?!#)|<script|<link", text)


def test_curves_take_the_colour_of_the_text(folder):
    text = report(folder)
    assert "currentColor" in text
    assert "#123456" not in text


def test_a_central_run_has_epochs_and_no_clients(folder):
    (folder / "rounds.csv").unlink()
    (folder / "clients.csv").unlink()
    assert Page(report(folder)).headings == ["Test set", "Audio", "Settings"]
    (folder / "train_log.txt").write_text("epoch: 1 - valid loss: -1.00e+00\n")
    text = report(folder)
    assert "Training" in Page(text).headings
    assert "1 epochs" in text


def test_a_run_without_references_has_no_scores(folder):
    (folder / "test_metrics.csv").write_text("id,n_noises\n")
    (folder / "rounds.csv").write_text("round,seconds,valid_loss\n1,2,-3.0\n")
    assert "Test set" not in Page(report(folder)).headings


@pytest.mark.parametrize(
    "key", ["wandb_api_key", "hub_token", "password", "AccessKey", "client_secret"]
)
def test_secrets_are_not_shown(folder, key):
    text = report(folder, **{key: "hunter2", "tokenizer": "shown", "keep": "shown too"})
    assert "hunter2" not in text and key in text
    assert "shown" in text and "shown too" in text


def test_players_say_what_was_gained_and_show_it(folder):
    text = report(folder)
    assert "a-1: +4.0 dB SI-SDR" in text
    assert text.count("data:image/png;base64,") == 3


@pytest.mark.parametrize(("kept", "enhanced"), [("true", "3.25"), ("false", "3.00")])
def test_players_say_how_the_model_that_was_kept_sounds(folder, kept, enhanced):
    (folder / "judged.csv").write_text(
        "id,ovrl_before,ovrl_start,ovrl_after\na-1,2.5,3.0,3.25\nb-1,nan,1,1\n"
    )
    (folder / "verdict.json").write_text(f'{{"sentence": "Use it.", "kept": {kept}}}')
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", report(folder))
    assert captions == ["Noisy: DNSMOS 2.50", f"Enhanced: DNSMOS {enhanced}", "Clean"]


#: Says by how much a page is wider than a window of 390 pixels, as telephones have.
PHONE = """<!DOCTYPE html><iframe width="390" height="844" src="report.html"
onload="const page = this.contentDocument.documentElement;
document.title = `${page.scrollWidth - page.clientWidth} pixels too wide`"></iframe>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_it_fits_on_a_telephone(folder, tmp_path):
    """Tables and long names included: nothing is wider than the window."""
    (folder / f"audio/{'long_name_' * 9}noisy.wav").write_bytes(
        (folder / "audio/a-1_noisy.wav").read_bytes()
    )
    report(folder, value="x" * 300, **{"y" * 90: 1})
    (folder / "phone.html").write_text(PHONE)
    page = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        + ["--allow-file-access-from-files", f"--user-data-dir={tmp_path}/chromium"]
        + ["--virtual-time-budget=5000", (folder / "phone.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert "<title>0 pixels too wide</title>" in page


def test_a_spectrogram_shows_a_tone_where_it_is():
    import base64
    import io

    from matplotlib import image

    from fedenhance.reports.html import spectrogram

    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    picture = image.imread(io.BytesIO(base64.b64decode(spectrogram(tone, 8000))))
    rows = picture[..., :3].sum(-1).mean(1)
    # A quarter of the way up to half the rate.
    assert 1 - rows.argmax() / len(rows) == pytest.approx(0.25, abs=0.02)
