"""Loaded into the WebUI by the tests: an extension that adds a picture made in a pass without scripts, as ADetailer makes its own."""

from copy import copy

import gradio as gr
from modules import processing, scripts
from PIL import Image


class InnerPass(scripts.Script):
    def title(self):
        return "Inner pass"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(visible=False), gr.Textbox(visible=False)]

    def postprocess_image(self, p, pp, prompt, checkpoint):
        if not prompt:
            return
        inner = processing.StableDiffusionProcessingTxt2Img(  # ADetailer's is img2img, where the VAE draws without a seed of its own
            sd_model=p.sd_model,
            prompt=prompt,
            seed=p.seed,
            sampler_name=p.sampler_name,
            steps=p.steps,
            cfg_scale=p.cfg_scale,
            width=p.width,
            height=p.height,
            do_not_save_samples=True,
            do_not_save_grid=True,
            extra_generation_params=p.extra_generation_params,
            override_settings={"sd_model_checkpoint": checkpoint} if checkpoint else {},
        )
        inner.cached_c, inner.cached_uc = [None, None], [None, None]
        none = copy(p.scripts)
        none.alwayson_scripts = []  # before they are given: the scripts of the page would set the seed
        inner.scripts, inner.script_args = none, p.script_args
        pp.image = Image.blend(pp.image, processing.process_images(inner).images[0], 0.5)
        inner.close()
