"""A MuJoCo scene seen as entities and through named cameras.

Rendering is tuned for software OpenGL, where shadow maps and multisampling cost ten times the rest.
Nothing here knows a task: other MuJoCo simulators can use the same two classes.
"""

from __future__ import annotations

import atexit
import itertools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8

from wamlab.config import nearest
from wamlab.types import Camera

BoxArrays = tuple[Float[np.ndarray, "b 3"], Float[np.ndarray, "b 3 3"], Float[np.ndarray, "b 3"]]
Kind = Literal["rgb", "depth", "segmentation"]
NOT_DRAWN = mujoco.mjNGROUP - 1
"""A group of geoms and sites that MuJoCo's default options leave out of pictures."""


@dataclass(frozen=True)
class View:
    """A camera of the model by name, whether its image is turned by 180 degrees, and its place.

    ``position`` (metres, in the frame of the body that carries the camera) replaces the model's.
    """

    camera: str
    turned: bool = False
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Distractor:
    """A thing that is in pictures and depth only: no collision, no entity; it hides what is behind.

    ``place`` of its middle and ``half`` of its size in metres, ``colour`` 0 to 1.
    """

    shape: Literal["sphere", "box", "cylinder"]
    place: tuple[float, float, float]
    half: float
    colour: tuple[float, float, float]

    def draw(self, scene: mujoco.MjvScene) -> None:
        kind = getattr(mujoco.mjtGeom, f"mjGEOM_{self.shape.upper()}")
        size, place, turned = np.full(3, self.half), np.array(self.place), np.eye(3).ravel()
        colour = np.array([*self.colour, 1.0], np.float32)
        thing = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(thing, kind, size, place, turned, colour)
        # What has no such number is left out of depth as well; this one is nobody's.
        thing.segid, thing.objid, thing.objtype = scene.ngeom, -1, int(mujoco.mjtObj.mjOBJ_UNKNOWN)
        scene.ngeom += 1


# mujoco.Renderer.close() frees its OpenGL objects when its context is no longer current, which hits
# the objects of whichever renderer is. So renderers are freed here, and one whose owner was
# garbage collected, perhaps in the middle of another's rendering, only before the next rendering.
_LIVE: list[mujoco.Renderer] = []
_ABANDONED: list[mujoco.Renderer] = []


class Entities:
    """The robot and the things of a scene, as rigid parts with stable names.

    A part is a set of bodies without a joint between them. Furniture that belongs to no task
    (``ignored`` top bodies) is no entity. ``names[0]`` is ``robot``: the whole arm, whose pose is
    that of the body ``hand``. A part that turns on a hinge is where its point farthest from the
    hinge's axis is: what lies on the axis stays where it is, however far the part turns.
    """

    def __init__(
        self, model: mujoco.MjModel, *, robot: str, hand: str, ignored: tuple[str, ...]
    ) -> None:
        self.model = model
        robot_root = model.body(robot).id
        skipped = {model.body(name).id for name in ignored if _has_body(model, name)}
        self.names: list[str] = ["robot"]
        self.bodies: list[int] = [model.body(hand).id]
        part_index: dict[int, int] = {}
        self.of_body = np.full(model.nbody, -1, np.int32)
        for body in range(1, model.nbody):
            root = int(model.body_rootid[body])
            if root == robot_root:
                self.of_body[body] = 0
            elif root not in skipped:
                # A static part is welded to the world; its top body then stands for it.
                part = int(model.body_weldid[body]) or root
                if part not in part_index:
                    part_index[part] = len(self.names)
                    self.names.append(self._fresh_name(model, part))
                    self.bodies.append(part)
                self.of_body[body] = part_index[part]
        self.points = [np.zeros(3), *(tip(model, body) for body in self.bodies[1:])]
        self.robot_places = qpos_of(model, np.flatnonzero(self.of_body == 0))
        self.of_geom: Int[np.ndarray, " g"] = self.of_body[model.geom_bodyid]
        self.of_site: Int[np.ndarray, " s"] = self.of_body[model.site_bodyid]

    def _fresh_name(self, model: mujoco.MjModel, body: int) -> str:
        parent = model.body(model.body_parentid[body]).name
        name = model.body(body).name or ("fixture" if parent == "world" else f"{parent}_part")
        return name if name not in self.names else f"{name}_{len(self.names)}"

    def poses(self, data: mujoco.MjData) -> dict[str, Float[np.ndarray, " 7"]]:
        """Position in metres and w-x-y-z quaternion by name."""
        return {
            name: np.concatenate(
                [data.xpos[body] + data.xmat[body].reshape(3, 3) @ point, data.xquat[body]]
            )
            for name, body, point in zip(self.names, self.bodies, self.points, strict=True)
        }

    def contacts(self, data: mujoco.MjData) -> list[tuple[str, str]]:
        """Pairs of different entities that touch, each pair once, in the order of ``names``."""
        touching = data.contact.geom[data.contact.dist <= 0]
        pairs = np.sort(self.of_geom[touching], axis=1)
        return [
            (self.names[a], self.names[b])
            for a, b in sorted({(int(a), int(b)) for a, b in pairs})
            if 0 <= a < b
        ]

    def boxes(self, data: mujoco.MjData) -> dict[str, BoxArrays]:
        """What collides, as boxes around it, by name: centres, axes as rows, half sizes, metres.

        A thing's are in the frame of its pose, those of ``furniture`` in the world. The robot has
        none: its pose does not say where its fingers are.
        """
        model = self.model
        solid = (model.geom_contype | model.geom_conaffinity).astype(bool)
        solid &= model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
        found = {}
        for index in (-1, *range(1, len(self.names))):
            geoms = np.flatnonzero(solid & (self.of_geom == index))
            axes = np.swapaxes(data.geom_xmat[geoms].reshape(-1, 3, 3), 1, 2)
            middle, half = np.split(model.geom_aabb[geoms], 2, axis=1)
            centre = data.geom_xpos[geoms] + np.einsum("bi,bij->bj", middle, axes)
            if index < 0:
                found["furniture"] = (centre, axes, half)
            else:
                body = self.bodies[index]
                turn = data.xmat[body].reshape(3, 3)
                place = data.xpos[body] + turn @ self.points[index]
                found[self.names[index]] = (centre - place) @ turn, axes @ turn, half
        return found

    def erase(self) -> None:
        """Leave things, and marks of any place, out of the model's pictures; physics stays."""
        self.model.geom_group[self.of_geom > 0] = NOT_DRAWN
        self.model.site_group[self.of_site != 0] = NOT_DRAWN

    def of_pixels(self, segmentation: Int[np.ndarray, "h w 2"]) -> Int[np.ndarray, "h w"]:
        """Entity index per pixel (-1 none) from MuJoCo's (object id, object type)."""
        index, kind = segmentation[..., 0], segmentation[..., 1]
        entity = np.full(index.shape, -1, np.int32)
        kinds = {mujoco.mjtObj.mjOBJ_GEOM: self.of_geom, mujoco.mjtObj.mjOBJ_SITE: self.of_site}
        for object_type, entity_of in kinds.items():
            here = kind == int(object_type)
            entity[here] = entity_of[index[here]]
        return entity


def qpos_of(model: mujoco.MjModel, bodies: Int[np.ndarray, " b"]) -> Int[np.ndarray, " q"]:
    """Where in ``qpos`` the joints of these bodies stand."""
    sizes = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}
    found = [
        np.arange(first, first + sizes.get(mujoco.mjtJoint(kind), 1))
        for first, kind, body in zip(
            model.jnt_qposadr, model.jnt_type, model.jnt_bodyid, strict=True
        )
        if body in bodies
    ]
    return np.concatenate(found) if found else np.zeros(0, int)


def tip(model: mujoco.MjModel, body: int) -> Float[np.ndarray, " 3"]:
    """Of a body on a hinge, the corner of its geoms' boxes farthest from the axis, in its frame.

    Without a hinge it is the origin. Geoms of bodies that are welded to it belong to it.
    """
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    hinges = [
        joint
        for joint in range(first, first + count)
        if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE
    ]
    corners = _corners(model, body, np.zeros(3), np.array([1.0, 0, 0, 0]))
    if not hinges or not corners:
        return np.zeros(3)
    points = np.concatenate(corners)
    away = points - model.jnt_pos[hinges[0]]
    axis = model.jnt_axis[hinges[0]]
    return points[np.linalg.norm(np.cross(away, axis), axis=1).argmax()]


def _corners(
    model: mujoco.MjModel, body: int, place: Float[np.ndarray, " 3"], turn: Float[np.ndarray, " 4"]
) -> list[Float[np.ndarray, "8 3"]]:
    """The corners of the geoms of a body and of those welded to it, which stand as given."""
    found = []
    for geom in np.flatnonzero(model.geom_bodyid == body):
        centre, half = model.geom_aabb[geom].reshape(2, 3)
        box = centre + half * np.array(list(itertools.product((-1, 1), repeat=3)))
        found.append(
            place + _turned(_turned(box, model.geom_quat[geom]) + model.geom_pos[geom], turn)
        )
    for child in np.flatnonzero(model.body_parentid == body):
        if child != body and not model.body_jntnum[child]:
            stands = place + _turned(model.body_pos[child][None], turn)[0]
            faces = np.zeros(4)
            mujoco.mju_mulQuat(faces, turn, model.body_quat[child])
            found += _corners(model, int(child), stands, faces)
    return found


def _turned(
    points: Float[np.ndarray, "n 3"], turn: Float[np.ndarray, " 4"]
) -> Float[np.ndarray, "n 3"]:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, turn)
    return points @ matrix.reshape(3, 3).T


class Cameras:
    """Square offscreen images of one model through named views, with one renderer for all."""

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, views: Mapping[str, View], size: int
    ) -> None:
        self.model, self.data, self.views, self.size = model, data, dict(views), size
        self.distractors: tuple[Distractor, ...] = ()
        self._renderer: mujoco.Renderer | None = None
        for view in self.views.values():
            if view.position is not None:
                model.cam_pos[model.camera(view.camera).id] = view.position

    def render(self, name: str, kind: Kind = "rgb") -> Shaped[np.ndarray, "h w *c"]:
        """RGB (H, W, 3) uint8, depth (H, W) float32 metres, or (H, W, 2) object id and type."""
        view = self._view(name)
        _free_abandoned()
        renderer = self._start()
        renderer.disable_depth_rendering()
        renderer.disable_segmentation_rendering()
        if kind == "depth":
            renderer.enable_depth_rendering()
        elif kind == "segmentation":
            renderer.enable_segmentation_rendering()
        elif kind != "rgb":
            raise KeyError(f"no rendering {kind!r}{nearest(kind, Kind.__args__)}")
        renderer.update_scene(self.data, camera=view.camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        for distractor in self.distractors:
            distractor.draw(renderer.scene)
        image = renderer.render()
        return np.ascontiguousarray(image[::-1, ::-1]) if view.turned else image.copy()

    def camera(self, name: str) -> Camera:
        """Intrinsics for pixel centres at whole numbers, and the pose, of the image as returned."""
        view = self._view(name)
        camera = self.model.camera(view.camera).id
        focal = 0.5 * self.size / np.tan(np.deg2rad(self.model.cam_fovy[camera]) / 2)
        centre = (self.size - 1) / 2
        intrinsics = np.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1.0]])
        # MuJoCo looks along -z with y up; half a turn of the image is half a turn about z.
        axes = np.array([-1.0, 1.0, -1.0]) if view.turned else np.array([1.0, -1.0, -1.0])
        pose = np.eye(4)
        pose[:3, :3] = self.data.cam_xmat[camera].reshape(3, 3) * axes
        pose[:3, 3] = self.data.cam_xpos[camera]
        return Camera(intrinsics=intrinsics, pose=pose)

    def reload_mesh(self, mesh: int) -> None:
        """Draw a mesh from now on as the model has it, after its vertices were changed."""
        context = self._start()._mjr_context
        self._start()._gl_context.make_current()
        mujoco.mjr_uploadMesh(self.model, context, mesh)

    def close(self) -> None:
        if self._renderer is not None:
            _free(self._renderer)
            self._renderer = None

    def _view(self, name: str) -> View:
        if name not in self.views:
            raise KeyError(f"no view {name!r}{nearest(name, self.views)}")
        return self.views[name]

    def _start(self) -> mujoco.Renderer:
        if self._renderer is None:
            self.model.vis.quality.offsamples = 0
            self.model.vis.quality.shadowsize = 0
            self._renderer = mujoco.Renderer(self.model, self.size, self.size)
            _LIVE.append(self._renderer)
            atexit.unregister(_free_all)
            atexit.register(_free_all)  # the last registered runs first: before mujoco's own hook
            weakref.finalize(self, _ABANDONED.append, self._renderer).atexit = False
        return self._renderer


def thin_out(model: mujoco.MjModel, *, cell: float) -> None:
    """Draw meshes with fewer triangles: vertices that share a cube of ``cell`` metres become one.

    Only pictures change. Collisions go by the convex hulls, which stay as they are.
    """
    for mesh in range(model.nmesh):
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        place = np.floor(model.mesh_vert[first : first + count] / cell)
        _, stands_for, cluster = np.unique(place, axis=0, return_index=True, return_inverse=True)
        at, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
        corners = stands_for[cluster.reshape(-1)][model.mesh_face[at : at + faces]]
        a, b, c = np.sort(corners, axis=1).T
        flat = (a == b) | (b == c)
        _, kept = np.unique(np.stack([a, b, c, flat], axis=1), axis=0, return_index=True)
        kept = np.sort(kept[~flat[kept]])
        for name, values in (
            ("mesh_face", corners),
            ("mesh_facenormal", model.mesh_facenormal[at : at + faces].copy()),
            ("mesh_facetexcoord", model.mesh_facetexcoord[at : at + faces].copy()),
        ):
            getattr(model, name)[at : at + len(kept)] = values[kept]
        model.mesh_facenum[mesh] = len(kept)


def masks_of(
    names: list[str], segmentation: Int[np.ndarray, "h w"]
) -> dict[str, Bool[np.ndarray, "h w"]]:
    """The visible pixels of each entity, from entity indices per pixel."""
    return {name: segmentation == index for index, name in enumerate(names)}


def stack_views(cameras: Cameras, views: tuple[str, ...]) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """RGB images as observation entries ``image/<view>``."""
    return {f"image/{view}": cameras.render(view) for view in views}


def _free(renderer: mujoco.Renderer) -> None:
    if renderer in _LIVE:
        _LIVE.remove(renderer)
        renderer._gl_context.make_current()
        renderer._mjr_context.free()
        renderer._mjr_context = None
        renderer.close()


def _free_abandoned() -> None:
    while _ABANDONED:
        _free(_ABANDONED.pop())


def _free_all() -> None:
    while _LIVE:
        _free(_LIVE[-1])


def _has_body(model: mujoco.MjModel, name: str) -> bool:
    return mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) >= 0
