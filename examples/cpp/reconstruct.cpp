// A digit through the tied autoencoder, by TensorFlow's C API: the library in Python's wheel.
//
//   reconstruct FOLDER < numbers
//
// FOLDER is a version of tied_autoencoder_mnist. It reads 784 numbers from 0 to 1, the pixels row by
// row, and prints the 784 of the reconstruction. Encoder and decoder read the same kernels, which
// are stored in FOLDER once.

#include <cstdlib>
#include <iostream>
#include <string>

#include "tensorflow/c/c_api.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

constexpr int kPixels = 784;

static void check(const TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  std::cerr << TF_Message(status) << "\n";
  std::exit(1);
}

// "name:0" as the C API has it
static TF_Output output(TF_Graph* graph, const std::string& tensor) {
  const auto colon = tensor.rfind(':');
  return {TF_GraphOperationByName(graph, tensor.substr(0, colon).c_str()),
          std::atoi(tensor.c_str() + colon + 1)};
}

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: reconstruct FOLDER < numbers\n";
    return 2;
  }
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  TF_Buffer* described = TF_NewBuffer();
  const char* tag = "serve";
  TF_Session* session = TF_LoadSessionFromSavedModel(
      TF_NewSessionOptions(), nullptr, arguments[1], &tag, 1, graph, described, status);
  check(status);

  // the names of tensors differ from file to file, those of signatures do not
  tensorflow::MetaGraphDef meta;
  meta.ParseFromArray(described->data, static_cast<int>(described->length));
  const auto& signature = meta.signature_def().at("reconstruct");
  const TF_Output from = output(graph, signature.inputs().at("inputs").name());
  const TF_Output to = output(graph, signature.outputs().at("reconstruction").name());

  const int64_t shape[] = {1, kPixels};  // (batch, pixels)
  TF_Tensor* pixels = TF_AllocateTensor(TF_FLOAT, shape, 2, kPixels * sizeof(float));
  float* values = static_cast<float*>(TF_TensorData(pixels));
  for (int i = 0; i < kPixels; ++i) {
    if (!(std::cin >> values[i])) {
      std::cerr << "expected " << kPixels << " numbers, received " << i << "\n";
      return 1;
    }
  }
  TF_Tensor* answer = nullptr;
  TF_SessionRun(session, nullptr, &from, &pixels, 1, &to, &answer, 1, nullptr, 0, nullptr, status);
  check(status);
  const float* found = static_cast<const float*>(TF_TensorData(answer));
  for (int i = 0; i < kPixels; ++i) std::cout << found[i] << "\n";
}
