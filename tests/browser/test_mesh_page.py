"""The viewer of meshes as a person uses it: drawn by WebGL, turned by hand, still without it."""

import io

import numpy as np
import pytest
from PIL import Image

from dmgi_lib.generators.eg3d.viewer import MeshView

trimesh = pytest.importorskip("trimesh")
pytestmark = pytest.mark.browser


def painted_ball():
    """Red on the person's left, blue on the right, green behind."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.3)
    x, _, z = mesh.vertices.T
    colors = np.where(x[:, None] > 0, (255, 0, 0), (0, 0, 255))
    colors[z < -0.1] = (0, 255, 0)
    mesh.visual.vertex_colors = np.pad(colors, ((0, 0), (0, 1)), constant_values=255)
    return mesh


@pytest.fixture
def shown(browser):
    """shown(script=None): a page with the viewer's frame, which asks nothing of any network."""
    contexts, problems = [], []

    def opened(script=None):
        context = browser.new_context(viewport={"width": 500, "height": 400})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url[:80])
                if request.url.startswith("http") else None)  # fmt: skip
        if script:
            context.add_init_script(script)
        frame = MeshView(painted_ball(), height=320)._repr_mimebundle_()["text/html"]
        page.set_content(f"<!doctype html><body>{frame}</body>")
        return page, page.frame_locator("iframe")

    yield opened
    for context in contexts:
        context.close()
    assert not problems


def pixel(page, x, y):
    """Colour of a point of the frame, (0, 0) … (1, 1) from its upper left."""
    picture = Image.open(io.BytesIO(page.locator("iframe").screenshot())).convert("RGB")
    return picture.getpixel((int(x * (picture.width - 1)), int(y * (picture.height - 1))))


def drawn(page, frame, view=None):
    """Waits until the canvas shows a view other than `view`, and returns the new one."""
    canvas = frame.locator("canvas")
    canvas.wait_for()
    for _ in range(100):
        now = canvas.get_attribute("data-view")
        if now and now != view:
            return now
        page.wait_for_timeout(50)
    raise AssertionError(f"the view stays {view}")


def test_it_draws_the_front_and_is_turned_by_mouse_and_keys(shown):
    page, frame = shown()
    view = drawn(page, frame)
    red, blue = pixel(page, 0.56, 0.5), pixel(page, 0.44, 0.5)
    assert red[0] > 150 > 60 > red[2] and blue[2] > 150 > 60 > blue[0]
    assert min(pixel(page, 0.03, 0.05)) > 200
    box = page.locator("iframe").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 157, y, steps=4)  # a quarter turn: what was on the left comes to the front
    page.mouse.up()
    turned = drawn(page, frame, view)
    assert float(turned.split()[0]) == pytest.approx(1.57, abs=0.05)
    page.wait_for_timeout(100)
    front = pixel(page, 0.5, 0.5)
    assert front[2] > 150 > 60 > front[0]
    frame.locator("canvas").press("Home")
    view = drawn(page, frame, turned)
    assert float(view.split()[0]) == 0
    frame.locator("canvas").press("ArrowLeft")
    view = drawn(page, frame, view)
    assert float(view.split()[0]) == pytest.approx(-0.1)
    frame.locator("canvas").press("+")
    assert float(drawn(page, frame, view).split()[2]) < float(view.split()[2])


def test_without_webgl_the_still_picture_stays(shown):
    _, frame = shown("HTMLCanvasElement.prototype.getContext = () => null")
    image = frame.locator("img")
    image.wait_for()
    assert image.evaluate("image => image.complete && image.naturalWidth") == 256
    assert frame.locator("canvas").is_hidden()
