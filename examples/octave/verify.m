% Do two pictures show the same character? Asks siamese_omniglot over REST.
%
%   octave verify.m http://localhost:8501 character_1.png character_2.png
%
% In MATLAB set these, and run verify:
%   server = 'http://localhost:8501'; files = {'character_1.png', 'character_2.png'};
% Needs Octave 7 or MATLAB, curl, and a server: keras-shared serve siamese_omniglot. One tower with
% one set of weights, stored once, looks at both pictures. (The tests run it in Octave alone.)
in_octave = exist('OCTAVE_VERSION', 'builtin') ~= 0;
if in_octave
  given = argv();
  if numel(given) ~= 3
    error('usage: octave verify.m SERVER PICTURE PICTURE');
  end
  server = given{1};
  files = given(2:3);
end

pictures = cell(1, 2);
for k = 1:2
  id = fopen(files{k}, 'r');
  if id < 0
    error('%s cannot be read', files{k});
  end
  bytes = fread(id, Inf, '*uint8')';
  fclose(id);
  if in_octave
    pictures{k} = struct('b64', base64_encode(bytes));
  else
    pictures{k} = struct('b64', matlab.net.base64encode(bytes));
  end
end
a = {pictures(1)};  % a batch of one pair
b = {pictures(2)};
inputs = struct('image_a_bytes', a, 'image_b_bytes', b);
body = jsonencode(struct('signature_name', 'verify_bytes', 'inputs', inputs));

file = tempname();
id = fopen(file, 'w');
fwrite(id, body);
fclose(id);
address = [server '/v1/models/siamese_omniglot:predict'];
[status, text] = system(sprintf('curl -s -d @%s %s', file, address));
delete(file);
if status ~= 0
  error('no connection to %s', server);
end
answer = jsondecode(text);
if isfield(answer, 'error')
  error(answer.error);
end
fprintf('probability that both show the same: %.6f\n', answer.outputs.probability);
