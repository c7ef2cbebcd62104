// SPDX-License-Identifier: Apache-2.0
// Decoding by the video engine of an NVIDIA GPU (NVDEC), through FFmpeg. Only decoding: frames come back to
// the host as NV12, and all that follows is as ever. The GPU has a context of FFmpeg's own for it, so that
// no error here ends the context that trains; memory and time of the GPU are shared all the same.
//
// Whatever the GPU does not do, the CPU does: a codec, a profile or a size it does not know (FFmpeg asks
// again for another format), colours that are not 4:2:0 (it would take them for such), a file that fails there
// (gather.c tries it once more), and everything after several such files in a row.
#include "runtime/video/nvdec.h"

#include <libavutil/hwcontext.h>
#include <libavutil/pixdesc.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FAILURES = 8 };

struct md_nvdec {
  AVBufferRef *device;
  atomic_int failures;  // of files in a row; from MOST_FAILURES on it is given up
  pthread_mutex_t lock;
  char refused[200];  // the first thing that it was not used for
  bool is_told, is_end_told;
};

// FFmpeg opens it with each decoder, and would keep a context on the GPU without it for nothing.
static bool has_library(char *words, int size) {
  void *library = dlopen("libnvcuvid.so.1", RTLD_LAZY | RTLD_LOCAL);
  const char *text = library ? NULL : dlerror();
  if (library) dlclose(library);
  else snprintf(words, (size_t)size, "%s", text ? text : "there is no libnvcuvid.so.1");
  return library != NULL;
}

md_nvdec *md_nvdec_open(int device, char *why, int size) {
  md_ffmpeg_take_log();
  char index[16], words[200] = "";
  snprintf(index, sizeof index, "%d", device);
  AVBufferRef *ref = NULL;
  md_ffmpeg_log_begin(words, sizeof words);
  int error = has_library(words, sizeof words)
                  ? av_hwdevice_ctx_create(&ref, AV_HWDEVICE_TYPE_CUDA, index, NULL, 0)
                  : AVERROR_EXTERNAL;
  md_ffmpeg_log_end();
  if (error < 0) {
    if (!*words) av_strerror(error, words, sizeof words);
    snprintf(why, (size_t)size, "FFmpeg has no decoder on GPU %d: %s", device, words);
    return NULL;
  }
  md_nvdec *n = md_calloc(1, sizeof *n);
  n->device = ref;
  pthread_mutex_init(&n->lock, NULL);
  return n;
}

void md_nvdec_close(md_nvdec *n) {
  if (!n) return;
  av_buffer_unref(&n->device);
  pthread_mutex_destroy(&n->lock);
  free(n);
}

// The first reason is enough: a data set has mostly one kind of files.
__attribute__((format(printf, 2, 3))) static void refuse(md_nvdec *n, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  pthread_mutex_lock(&n->lock);
  if (!*n->refused) vsnprintf(n->refused, sizeof n->refused, fmt, ap);
  pthread_mutex_unlock(&n->lock);
  va_end(ap);
}

static bool is_given_up(const md_nvdec *n) { return atomic_load(&n->failures) >= MOST_FAILURES; }

bool md_nvdec_news(md_nvdec *n, char *text, int size) {
  pthread_mutex_lock(&n->lock);
  bool is_new = *n->refused && !n->is_told;
  bool is_end = !is_new && is_given_up(n) && !n->is_end_told;
  if (is_new) snprintf(text, (size_t)size, "%s", n->refused);
  if (is_end)
    snprintf(text, (size_t)size, "anything any more: %d files in a row failed", MOST_FAILURES);
  n->is_told |= is_new;
  n->is_end_told |= is_end;
  pthread_mutex_unlock(&n->lock);
  return is_new || is_end;
}

// Files that are under way when it is given up change nothing more.
void md_nvdec_count(md_nvdec *n, bool was_well) {
  pthread_mutex_lock(&n->lock);
  if (!is_given_up(n)) n->failures = was_well ? 0 : n->failures + 1;
  pthread_mutex_unlock(&n->lock);
}

// FFmpeg's question: which of these formats? It asks again without the GPU's where that fails. That comes back as
// NV12, so the CPU's has to be 4:2:0, too. (FFmpeg's own answer would be the GPU's.)
static enum AVPixelFormat choose(AVCodecContext *decoder, const enum AVPixelFormat *formats) {
  const AVPixFmtDescriptor *cpu = av_pix_fmt_desc_get(decoder->sw_pix_fmt);
  bool is_420 = cpu && cpu->log2_chroma_w == 1 && cpu->log2_chroma_h == 1;
  for (const enum AVPixelFormat *f = formats; is_420 && *f != AV_PIX_FMT_NONE; f++)
    if (*f == AV_PIX_FMT_CUDA) return *f;
  if (is_420)
    refuse(decoder->opaque, "some %s video, by its profile or size", decoder->codec->name);
  else
    refuse(decoder->opaque, "%s video in %s", decoder->codec->name, cpu ? cpu->name : "no format");
  return decoder->sw_pix_fmt;
}

static bool is_known(const AVCodec *codec) {
  const AVCodecHWConfig *c;
  for (int i = 0; (c = avcodec_get_hw_config(codec, i)) != NULL; i++)
    if (c->device_type == AV_HWDEVICE_TYPE_CUDA &&
        (c->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX))
      return true;
  return false;
}

void md_nvdec_attach(md_nvdec *n, AVCodecContext *decoder) {
  if (is_given_up(n)) return;
  if (!is_known(decoder->codec)) {
    refuse(n, "videos of %s", decoder->codec->name);
    return;
  }
  decoder->hw_device_ctx = av_buffer_ref(n->device);
  decoder->opaque = n;
  decoder->extra_hw_frames = 1;  // the last one is kept while the next is decoded
  if (decoder->hw_device_ctx) decoder->get_format = choose;
}

bool md_nvdec_has(const AVCodecContext *decoder) { return decoder->hwaccel != NULL; }

bool md_nvdec_fetch(AVFrame *frame, AVFrame *spare) {
  av_frame_unref(spare);
  bool ok =
      av_hwframe_transfer_data(spare, frame, 0) >= 0 && av_frame_copy_props(spare, frame) >= 0;
  av_frame_unref(frame);
  if (!ok) return false;
  av_frame_move_ref(frame, spare);
  av_frame_apply_cropping(frame, 0);  // on the GPU the left and upper edge stay
  return true;
}
