// SPDX-License-Identifier: Apache-2.0
// Between decode.c and nvdec.c: a decoder of FFmpeg's that may run on a GPU.
#ifndef RUNTIME_VIDEO_NVDEC_H
#define RUNTIME_VIDEO_NVDEC_H

#include "runtime/video/video.h"

#include <libavcodec/avcodec.h>

// Before avcodec_open2: from then on the decoder uses the GPU where that can do what the file asks for.
void md_nvdec_attach(md_nvdec *n, AVCodecContext *decoder);
// Whether the decoder decodes there; known after its first packet.
bool md_nvdec_has(const AVCodecContext *decoder);
// A frame on the GPU becomes one of the host, by way of `spare`. False: it could not be had.
bool md_nvdec_fetch(AVFrame *frame, AVFrame *spare);

// --- decode.c
void md_ffmpeg_take_log(void);
// The first error that FFmpeg's log has in this thread from `begin` on; `end` returns it.
void md_ffmpeg_log_begin(char *line, int size);
void md_ffmpeg_log_end(void);

#endif
